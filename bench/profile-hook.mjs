/**
 * Loaded into a proxy by `npm run bench -- profile`: SIGUSR2 begins a processor profile of it, the next SIGUSR2 writes it
 * to PGMM_PROFILE_DIR/PID.cpuprofile. JavaScript, as it is loaded before anything that could read TypeScript.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { Session } from 'node:inspector';
import { join } from 'node:path';

const directory = process.env.PGMM_PROFILE_DIR;
const INTERVAL_MICROSECONDS = 200;
let session;

function begin() {
  session = new Session();
  session.connect();
  session.post('Profiler.enable');
  session.post('Profiler.setSamplingInterval', { interval: INTERVAL_MICROSECONDS });
  session.post('Profiler.start');
}

function end() {
  session.post('Profiler.stop', (error, answer) => {
    const file = join(directory, `${process.pid}.cpuprofile`);
    writeFileSync(`${file}.part`, JSON.stringify(error === null ? answer.profile : { error: String(error) }));
    renameSync(`${file}.part`, file);
  });
  session.disconnect();
  session = undefined;
}

if (directory !== undefined) process.on('SIGUSR2', () => (session === undefined ? begin() : end()));
