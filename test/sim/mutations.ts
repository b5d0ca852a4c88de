/** A deliberate fault: pieces of source text and what to put in their place. */
export interface Mutation {
  readonly name: string;
  readonly edits: readonly (readonly [file: string, from: string, to: string])[];
  /** Why seeds hardly ever notice it, where that is so. */
  readonly because?: string;
  /** The tests that do; without them the fault must change nothing that anybody can see. */
  readonly noticedBy?: string;
}

const COORDINATOR = 'src/commit/core/coordinator.ts';
const PARTICIPANT = 'src/commit/core/participant.ts';
const QUEUE = 'src/commit/core/commit-queue.ts';
const LANES = 'src/commit/core/commit-lanes.ts';
const PROGRESS = 'src/commit/core/commit-progress.ts';
const GUARD = 'src/commit/core/guard.ts';
const NODE = 'src/cluster/core/node-core.ts';
const DUTIES = 'src/cluster/core/leader-duties.ts';
const PROPOSALS = 'src/cluster/core/proposals.ts';
const LOCKS = 'src/commit/core/advisory-locks.ts';
const AGENT = 'src/cluster/core/lock-agent.ts';
const RAFT = 'src/consensus/core/raft-core.ts';
const LEADER = 'src/consensus/core/leader.ts';
const GID = 'src/commit/gid.ts';

/** Each must be caught by some seed, or explained: a fault that nothing notices is a gap in the checks. */
export const MUTATIONS: readonly Mutation[] = [
  {
    name: 'votes before PREPARE is durable',
    edits: [
      [
        PARTICIPANT,
        "    t.state = 'applying';\n",
        "    t.state = 'applying';\n    this.#emit({ type: 'vote', to: t.parts.node, gid: t.gid });\n",
      ],
    ],
  },
  {
    name: 'replays without waiting for depends_on',
    edits: [[PARTICIPANT, 'if (dependsOn <= this.#committed) this.#apply(t);', 'this.#apply(t);']],
  },
  {
    name: 'catches up without waiting for depends_on',
    edits: [[PARTICIPANT, 'if (t.dependsOn > this.#committed) return this.#dependent.push(t.dependsOn, t);', '']],
  },
  {
    name: 'overrules what locks whole tables like any other',
    edits: [
      [
        PARTICIPANT,
        'if (t.index === 0 && standing !== undefined && comparePriority(standing, t.parts) < 0) {',
        'if (t.index !== 0 && standing !== undefined && comparePriority(standing, t.parts) < 0) {',
      ],
    ],
  },
  {
    name: 'counts a vote whatever its epoch',
    because: 'only a clone takes away what was voted for, seldom while it is undecided',
    noticedBy: 'test/unit/commit',
    edits: [
      [GUARD, 'votes.get(node) !== epoch', '!votes.has(node)'],
      [COORDINATOR, 'if (vote !== epoch) missing.push(node);', 'if (vote === undefined) missing.push(node);'],
    ],
  },
  {
    name: 'the leader does not check votes',
    edits: [
      [
        GUARD,
        "return missing.length > 0 ? { type: 'votes-missing', nodes: missing } : undefined;",
        'return undefined;',
      ],
    ],
  },
  {
    name: 'the leader does not check the epoch of a COMMIT',
    edits: [
      [
        GUARD,
        "if (parts === undefined || this.#members.get(parts.node) !== parts.epoch) return { type: 'epoch-ended' };",
        '',
      ],
    ],
  },
  {
    name: 'blames members for what they have not heard of',
    edits: [
      [COORDINATOR, "if (t.phase === 'collecting' && t.announced && waited", "if (t.phase === 'collecting' && waited"],
    ],
  },
  {
    name: 'aborts while proposing',
    edits: [
      [COORDINATOR, "if (t.phase === 'proposing') return; // only the log decides now", '// only the log decides now'],
    ],
  },
  {
    name: 'takes any refusal for final',
    because: 'two copies must meet two views of the members, and the client a timeout',
    noticedBy: 'test/unit/commit',
    edits: [
      [COORDINATOR, ' || attempt !== t.attempt', ''],
      [DUTIES, 'if (origin === undefined) return false;', 'return false;'],
    ],
  },
  {
    name: 'takes "behind" for final',
    edits: [
      [
        COORDINATOR,
        "      case 'already-committed':\n      case 'behind':\n        return;",
        "      case 'already-committed':\n        return;\n      case 'behind':\n        t.phase = 'collecting';\n        return this.#abort(t, reports.epochEnded(t.gid));\n      case 'no-change':\n        return;",
      ],
    ],
  },
  {
    name: 'proposes nothing twice',
    edits: [[COORDINATOR, "const repeated = again && t.phase === 'proposing';", 'const repeated = false;']],
  },
  {
    name: 'does not repeat a proposal that lacks a new vote',
    edits: [
      [
        COORDINATOR,
        "if (!repeated && (t.phase !== 'collecting' || this.#missing(t).length > 0)) return;",
        "if ((!repeated && t.phase !== 'collecting') || this.#missing(t).length > 0) return;",
      ],
    ],
  },
  {
    name: 'commits what is prepared, in any order',
    edits: [[QUEUE, 'if (!isPrepared(entry)) return undefined;', 'if (!isPrepared(entry)) continue;']],
  },
  {
    name: 'hands out nothing again after a crash',
    edits: [[QUEUE, '    this.done(committed);\n    this.#handedOut = committed;', '    this.done(committed);']],
  },
  {
    name: 'commits once more what was committed out of order',
    edits: [[QUEUE, 'entries.filter(({ index }) => !this.#found.has(index))', '[...entries]']],
  },
  {
    name: 'commits once more what the log tells later and was committed out of order',
    edits: [[QUEUE, 'if (this.#found.has(entry.index)) return false;', '']],
  },
  {
    name: 'tells of commits before all those before them',
    edits: [
      [
        LANES,
        'const reported = this.#underWay.splice(0, count);',
        'this.#underWay.splice(0, count);\n    const reported = [index];',
      ],
    ],
  },
  {
    name: 'takes the furthest lane for all of them',
    edits: [[PROGRESS, 'return Math.min(...positions.map(next)) - 1;', 'return Math.max(...positions.map(next)) - 1;']],
  },
  {
    name: 'depends on less than what it can have seen out of order',
    edits: [[QUEUE, 'return Math.max(this.#handedOut, this.#found.highest) as LogIndex;', 'return this.#handedOut;']],
    because: 'what it overtook is handed out before the node is a member again, and locks hold up who depends on it',
    noticedBy: 'test/unit/commit/commit-queue.test.ts',
  },
  { name: 'claims what a snapshot hides', edits: [[QUEUE, 'return this.#committed >= this.#from;', 'return true;']] },
  {
    name: 'tells no coordinator of a decision while PostgreSQL is down',
    edits: [
      [NODE, "if (this.#state !== 'recovering' || this.#coordinator.has(gid))", "if (this.#state !== 'recovering')"],
    ],
  },
  {
    name: 'drops what the log has committed',
    edits: [[PARTICIPANT, 'if (this.#view.isCommitted(t.gid)) return;', '']],
  },
  {
    name: 'rolls back on not-active without reading the log up to there',
    edits: [
      [
        PARTICIPANT,
        'if (event.asOf <= this.#logApplied) return this.#drop(t);',
        'if (event.asOf >= 0) return this.#drop(t);',
      ],
    ],
  },
  {
    name: 'who waits for a commit is not woken by it',
    edits: [[PARTICIPANT, 'else this.#dependent.push(dependsOn, t);', '']],
  },
  {
    name: 'answers for what is under way',
    edits: [[NODE, 'else if (!this.#coordinator.has(gid)) this.#send', 'else this.#send']],
  },
  {
    name: 'never asks about what stays undecided',
    edits: [[NODE, 'if (old.length > 0 && node', 'if (old.length > 1000 && node']],
  },
  {
    name: 'keeps what an ended epoch left',
    edits: [[NODE, "this.#participate({ type: 'epoch-ended', node, epoch: ended });", '']],
  },
  {
    name: 'keeps own transactions when the epoch ends',
    edits: [[COORDINATOR, 'members.get(this.#settings.self) !== t.parts.epoch) {', 'members.size > 1000) {']],
  },
  {
    name: "takes an earlier run's admission for its own",
    edits: [[NODE, 'const isOld = index <= this.#startedAt;', 'const isOld = false;']],
  },
  {
    name: 'finds no COMMIT twice',
    edits: [
      [GUARD, "if (this.#recent.has(gid)) return { type: 'already-committed' };", ''],
      [GUARD, 'if (this.#recent.has(gid)) throw new Error(`the log has COMMIT of ${gid} twice`);', ''],
    ],
  },
  {
    name: 'a leader that starts from a snapshot knows all commits',
    edits: [[GUARD, "if (asOf < this.#recentFrom) return { type: 'behind' };", '']],
  },
  {
    name: 'claims to have read what a snapshot skipped',
    edits: [[PROPOSALS, 'votes, asOf: this.#view.readUpTo() }', 'votes, asOf: this.#view.guard().index }']],
  },
  {
    name: 'writes before it has what precedes its admission',
    edits: [[NODE, "if (this.#state === 'member' && this.committed >= this.#epoch)", "if (this.#state === 'member')"]],
  },
  {
    name: 'depends on nothing',
    edits: [
      [
        NODE,
        'this.#announcements.begin(event.gid, this.#queue.handedOut);',
        'this.#announcements.begin(event.gid, 0 as LogIndex);',
      ],
    ],
  },
  { name: 'answers before the local commit', edits: [[COORDINATOR, 'if (!reached(this.#settings.self)) return;', '']] },
  {
    name: 'answers remote_apply after the local commit',
    edits: [[COORDINATOR, 'if (t.everywhere && ', 'if (t.index === 0 && t.everywhere && ']],
  },
  {
    name: 'says committed when it only gave up waiting',
    edits: [
      [
        COORDINATOR,
        "this.#answer(t, { type: 'unknown', error: reports.unknown(t.gid) });",
        "this.#answer(t, { type: 'committed', index: t.index });",
      ],
    ],
  },
  {
    name: 'says aborted when it only gave up waiting',
    edits: [
      [
        COORDINATOR,
        "this.#answer(t, { type: 'unknown', error: reports.unknown(t.gid) });",
        "this.#answer(t, { type: 'aborted', error: reports.unknown(t.gid) });",
      ],
    ],
  },
  {
    name: 'the winner of a conflict waits',
    edits: [[PARTICIPANT, 'if (comparePriority(t.parts, other) < 0) {', 'if (comparePriority(t.parts, other) > 0) {']],
  },
  {
    name: 'priority differs from node to node',
    edits: [[GID, 'x - y ||\n', 'b.sequence - a.sequence ||\n']],
  },
  {
    name: 'clients keep locks that a replay needs',
    edits: [
      [
        PARTICIPANT,
        "if (holder.type === 'backend') {",
        "if (holder.type === 'backend') return;\n    if (holder.type === 'backend') {",
      ],
    ],
  },
  {
    name: "a refused entry stays in the leader's view",
    edits: [
      [
        PROPOSALS,
        '    this.#duties = undefined;\n    if (index === undefined) return;',
        '    if (index === undefined) return;',
      ],
    ],
  },
  {
    name: 'takes no proposal after a refused entry',
    edits: [[PROPOSALS, 'if (index === undefined) return;', 'return;']],
  },
  {
    name: 'a new member is silent from before its admission',
    edits: [[DUTIES, "if (command.type === 'admit') this.#lastGood.set(command.node, now);", '']],
  },
  {
    name: 'nobody is excluded for silence',
    edits: [[DUTIES, 'if (silent >= this.#settings.heartbeatTimeout) {', 'if (silent >= 1e9) {']],
  },
  {
    name: 'votes are not given again after an admission',
    edits: [[NODE, 'if (this.#epoch === (index as number)) this.#voteAgain();', '']],
    because: 'the origin announces every undecided transaction again, and so asks for the vote',
  },
  {
    name: 'locks of an ended epoch are given away at once',
    edits: [[DUTIES, 'now - since >= FREE_LOCKS_AFTER * this.#settings.heartbeatTimeout', 'now >= since']],
  },
  {
    name: 'locks of an ended epoch are never given away',
    edits: [[DUTIES, 'now - since >= FREE_LOCKS_AFTER * this.#settings.heartbeatTimeout', 'now - since >= 1e9']],
  },
  {
    name: 'locks go with the epoch',
    edits: [
      [
        GUARD,
        'return this.#locks.epochEnded(command.node, command.epoch);',
        'return this.#locks.free(command.node, command.epoch);',
      ],
    ],
  },
  {
    name: 'sessions keep locks when the lease is over',
    edits: [[AGENT, 'session.held.size > 0 && this.#now >= this.leaseEnd', 'session.held.size > 1000']],
    because: 'the model of a session looks at the lease itself, as the proxy does before it acts',
    noticedBy: 'test/unit/cluster-core',
  },
  {
    name: 'a lease is renewed by any answer',
    because: 'an answer must overtake the entry that ends the epoch, and the node then hear nothing for a lease',
    noticedBy: 'test/unit/cluster-core',
    edits: [[AGENT, '      if (index > read) return true;\n', '']],
  },
  {
    name: 'sessions of a node that is out are not ended',
    edits: [
      [
        AGENT,
        'if (session.held.size > 0) this.#lose(session, reason);',
        'if (session.held.size > 1000) this.#lose(session, reason);',
      ],
    ],
  },
  {
    name: 'a request for a lock is sent once',
    edits: [
      [
        AGENT,
        'if (first !== undefined && this.#now - first.sentAt >= this.#settings.resendAfter) this.#propose(session);',
        '',
      ],
      [AGENT, 'for (const session of this.#sessions.values()) this.#propose(session);', ''],
    ],
  },
  {
    name: 'what was withdrawn is not let go of',
    because: 'the session lets go of it in the end, and sessions of the model are short',
    noticedBy: 'test/unit/cluster-core',
    edits: [[AGENT, 'session.held.has(nameOf(lock, shared)) ? [] : [[lock, shared]]', '[]']],
  },
  {
    name: 'a copy of a request counts once more',
    because: 'what it is granted goes when the session ends, and sessions of the model are short',
    noticedBy: 'test/unit/commit',
    edits: [
      [LOCKS, '    if (this.has(command)) return NONE;\n', ''],
      [
        LOCKS,
        'return (this.#sessions.get(keyOf(node, epoch, session))?.last ?? -1) >= request;',
        'return node === 0 && epoch === 0 && session === request;',
      ],
    ],
  },
  {
    name: 'exclusive locks are granted beside shared ones',
    edits: [
      [
        LOCKS,
        'if (session !== waiter.session && (held.exclusive || !waiter.shared)) return true;',
        'if (session !== waiter.session && held.exclusive) return true;',
      ],
    ],
  },
  {
    name: 'no circle of waiting sessions is found',
    edits: [[LOCKS, 'if (blocker === start || visit(blocker)) return true;', 'if (visit(blocker)) return true;']],
  },
  {
    name: 'a single committer is believed to prove at once what several have done',
    because: 'the log has to be compacted before the next commit, and no other node to know better',
    noticedBy: 'test/unit/commit',
    edits: [
      [
        PROGRESS,
        'if (highest <= contiguous || index >= highest) return',
        'if (highest >= index || index >= highest) return',
      ],
    ],
  },
  {
    name: 'waits in PostgreSQL are not heard of',
    edits: [[AGENT, 'if (!this.#view.knows(waits)) this.#view.propose(waits);', '']],
  },
  {
    name: 'a wait in PostgreSQL is believed when it is over',
    because: 'a request that fails for a circle that is none looks like one that fails for a circle',
    noticedBy: 'test/unit/commit',
    edits: [[LOCKS, 'if (session.waiter?.request === request) yield session;', 'if (request > 0) yield session;']],
  },
  {
    name: 'nobody is woken when a lock is let go of',
    edits: [
      [
        LOCKS,
        '    this.#wake(name, lock, outcomes);\n  }\n\n  // ---- one lock',
        '    this.#tidy(name, lock);\n  }\n\n  // ---- one lock',
      ],
    ],
  },
  {
    name: 'takes writes while its live slot is being made',
    edits: [
      [
        NODE,
        "if (this.#state === 'member' && this.committed >= this.#epoch) return this.#unready;",
        "if (this.#state === 'member' && this.committed >= this.#epoch) return undefined;",
      ],
    ],
  },
  {
    name: 'asks to be let in though what it lacks is gone',
    edits: [[NODE, ' || this.#isHistoryGone) return;', ') return;']],
  },
  {
    name: 'raft: does not ask again for what a voter acknowledged before its vote counted',
    because: 'nothing new may be appended meanwhile, which is so once in ten thousand runs',
    noticedBy: 'test/unit/consensus',
    edits: [
      [LEADER, 'progress.match < this.#log.lastIndex || progress.isUncounted', 'progress.match < this.#log.lastIndex'],
    ],
  },
  {
    name: 'raft: counts its own log before it is durable',
    edits: [[RAFT, 'this.#lead.committable(this.#replica.durable)', 'this.#lead.committable(this.lastIndex)']],
  },
  {
    name: 'raft: leads before its no-op is committed',
    edits: [
      [
        RAFT,
        'return this.#lead !== null && this.#replica.delivered >= this.#lead.noop;',
        'return this.#lead !== null;',
      ],
    ],
  },
  {
    name: 'raft: commits an earlier term by counting',
    because: 'figure 8 of the Raft paper needs five elections in a row',
    noticedBy: 'test/transcripts',
    edits: [[LEADER, 'this.#log.termAt(index) === this.#term ? index', 'true ? index']],
  },
  {
    name: 'raft: votes for a shorter log',
    edits: [
      [RAFT, 'if (!free || !this.#log.isUpToDate(message.lastIndex, message.lastTerm)) {', 'if (!free) {'],
      [RAFT, '&& this.#log.isUpToDate(message.lastIndex, message.lastTerm);', ';'],
    ],
  },
  {
    name: 'raft: votes before the vote is durable',
    because: 'a crash must fall between vote and disk, twice in one term',
    noticedBy: 'test/unit/consensus',
    edits: [
      [
        RAFT,
        "this.#promise(from, { type: 'voteReply', term: this.#term, granted: true });",
        "this.#send(from, { type: 'voteReply', term: this.#term, granted: true });",
      ],
    ],
  },
  {
    name: 'raft: acknowledges before the entries are durable',
    edits: [
      [
        RAFT,
        "this.#promise(from, this.#toLeader({ type: 'appendAccepted', term: this.#term, match }));",
        "this.#send(from, this.#toLeader({ type: 'appendAccepted', term: this.#term, match }));",
      ],
    ],
  },
];
