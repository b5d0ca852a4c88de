import { cancelRequest } from '../wire/startup-packet.ts';
import { connectToServer } from './connect.ts';
import type { ServerAddress } from './connect.ts';

/**
 * Sends a CancelRequest ("Canceling Requests in Progress") and waits until the server closes the connection: by then it has signalled the
 * backend, so nothing that is sent to it later is hit. Never rejects: a cancel is a wish.
 */
export async function cancelOnServer(server: ServerAddress, pid: number, key: Buffer): Promise<void> {
  try {
    const socket = await connectToServer(server);
    await new Promise<void>((resolve) => {
      socket.once('close', () => resolve());
      socket.once('error', () => undefined);
      socket.resume();
      socket.write(cancelRequest(pid, key));
    });
  } catch {
    // The server is down: so is what was to be cancelled.
  }
}
