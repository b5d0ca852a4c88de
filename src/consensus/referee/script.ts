import type { FoundReferee } from '../core/referee-setup.ts';
import type { LogPosition, RefereeAnswer, RefereeRequest } from '../core/referee.ts';
import type { LogIndex } from '../../runtime/ids.ts';

/**
 * The referee's memory is one Redis hash, and this script alone changes it, whole or not at all. KEYS[1] is the hash; ARGV are the
 * operation, the owner, the id of the memory, and what `argumentsOf` puts after them. It answers the verdict and what the hash holds then.
 * `referee-model.ts` in the tests says the same in TypeScript, and a test compares the two.
 *
 * `voted` is the number of a node, empty for nobody yet, or `*` for a term in which no vote is to be had. `lease` is until when a
 * leader is taken to be there, by Redis's own clock: it can only keep votes back, so a wrong clock costs time and nothing else.
 */
export const SCRIPT = `
local fields = {'owner', 'id', 'joined', 'sealed', 'term', 'voted', 'last_term', 'last_index', 'lease'}
local has, changes = {}, {}
for i, value in ipairs(redis.call('HMGET', KEYS[1], unpack(fields))) do has[fields[i]] = value or '' end
for _, field in ipairs({'term', 'last_term', 'last_index', 'lease'}) do has[field] = tonumber(has[field]) or 0 end

local op, owner, id = ARGV[1], ARGV[2], ARGV[3]
local function put(field, value)
  if has[field] == value then return end
  has[field] = value
  changes[#changes + 1] = field
  changes[#changes + 1] = value
end
local function reaches(term, index)
  return term > has.last_term or (term == has.last_term and index >= has.last_index)
end
local function take(term, last_term, last_index)
  if term >= has.term then put('term', term) put('voted', '*') end
  if reaches(last_term, last_index) then put('last_term', last_term) put('last_index', last_index) end
end
local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function run()
  if has.owner ~= '' and has.owner ~= owner then return 'foreign' end
  if op == 'look' then return 'yes' end
  if op == 'create' then
    if has.id ~= ARGV[4] then return 'moved' end
    redis.call('DEL', KEYS[1])
    for _, field in ipairs(fields) do has[field] = nil end
    has.term, has.last_term, has.last_index = 0, 0, 0
    put('owner', owner) put('id', id) put('joined', '0') put('sealed', '0') put('lease', 0)
    take(tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]))
    return 'yes'
  end
  if has.id ~= id then return 'moved' end
  if op == 'join' then
    put('joined', '1') put('sealed', '0')
    take(tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]))
    return 'yes'
  end
  if op == 'seal' then
    if has.joined ~= '1' then return 'no' end
    put('sealed', '1')
    return 'yes'
  end
  if op == 'discard' then
    redis.call('DEL', KEYS[1])
    has = {id = '', term = 0, last_term = 0, last_index = 0}
    return 'yes'
  end
  if has.sealed ~= '1' then return 'moved' end

  local node, term = ARGV[4], tonumber(ARGV[5])
  if op == 'lead' then
    local index, lease = tonumber(ARGV[6]), tonumber(ARGV[7])
    if term < has.term then return 'no' end
    if term > has.term then put('term', term) put('voted', node) end
    if index > 0 and (has.last_term < term or has.last_index < index) then
      put('last_term', term) put('last_index', index)
    end
    local now = milliseconds()
    if has.lease - now < lease / 2 then put('lease', now + lease) end
    return 'yes'
  end
  if term > has.term and ARGV[8] ~= '1' and milliseconds() < has.lease then return 'held' end
  local current = reaches(tonumber(ARGV[6]), tonumber(ARGV[7]))
  if op == 'preVote' then
    return (term > has.term and current) and 'yes' or 'no'
  end
  if term > has.term then put('term', term) put('voted', '') end
  if term < has.term or not current or (has.voted ~= '' and has.voted ~= node) then return 'no' end
  put('voted', node)
  return 'yes'
end

local verdict = run()
if #changes > 0 then redis.call('HSET', KEYS[1], unpack(changes)) end
return {verdict, has.id, has.joined == '1' and 1 or 0, has.sealed == '1' and 1 or 0,
  has.term, has.last_term, has.last_index}
`;

export type RefereeCommand =
  | { readonly op: 'look' }
  /** `replaces`: the id that was found, or null; nothing happens if another one is there now. */
  | { readonly op: 'create'; readonly id: string; readonly replaces: string | null; readonly position: LogPosition }
  | { readonly op: 'join'; readonly id: string; readonly position: LogPosition }
  | { readonly op: 'seal' | 'discard'; readonly id: string }
  | {
      readonly op: 'raft';
      readonly id: string;
      /** Who asks. */
      readonly node: number;
      readonly request: RefereeRequest;
      /** Milliseconds for which a leader that was heard from keeps candidates away. */
      readonly lease: number;
    };

/**
 * - `foreign`: the hash is another cluster's, or of other nodes.
 * - `moved`: this memory is not there any more, or not sealed.
 */
export type Verdict = RefereeAnswer['verdict'] | 'foreign' | 'moved';

export interface ScriptAnswer {
  readonly verdict: Verdict;
  readonly found: FoundReferee;
}

export function argumentsOf(owner: string, command: RefereeCommand): string[] {
  switch (command.op) {
    case 'look':
      return ['look', owner, ''];
    case 'create':
      return ['create', owner, command.id, command.replaces ?? '', ...numbersOf(command.position)];
    case 'join':
      return ['join', owner, command.id, ...numbersOf(command.position)];
    case 'seal':
    case 'discard':
      return [command.op, owner, command.id];
    case 'raft': {
      const { id, node, request, lease } = command;
      const head = [request.op, owner, id, String(node), String(request.term)];
      if (request.op === 'lead') return [...head, String(request.index), String(lease)];
      const transfer = request.op === 'vote' && request.transfer ? '1' : '0';
      return [...head, String(request.lastTerm), String(request.lastIndex), transfer];
    }
  }
}

const numbersOf = ({ term, lastTerm, lastIndex }: LogPosition): string[] => [term, lastTerm, lastIndex].map(String);

const VERDICTS: readonly unknown[] = ['yes', 'no', 'held', 'foreign', 'moved'] satisfies Verdict[];

/** Throws on anything but what the script answers. */
export function readAnswer(reply: unknown): ScriptAnswer {
  if (!Array.isArray(reply) || reply.length !== 7 || !VERDICTS.includes(reply[0])) {
    throw new Error(`Redis gave an answer that is not the script's: ${JSON.stringify(reply)}`);
  }
  const [verdict, id, joined, sealed, term, lastTerm, lastIndex] = reply as [Verdict, string, ...number[]];
  return {
    verdict,
    found: {
      id: id === '' ? null : id,
      joined: joined === 1,
      sealed: sealed === 1,
      term,
      lastTerm,
      lastIndex: lastIndex as LogIndex,
    },
  };
}
