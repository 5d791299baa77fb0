/** Waiting for one Node to be there and to have a podCIDR: by its own watch, which tells at once. */
import { fields, readNode } from './node-object.ts';
import type { NodesApi } from './nodes-api.ts';

/** Within one attempt; whoever claims tries again. */
const TIMEOUT_SECONDS = 10;

/** Resolves when it is so, or after ten seconds. @throws StoreUnavailableError, StoreAccessError */
export async function awaitNode(api: NodesApi, name: string, signal: AbortSignal): Promise<void> {
  const response = await api.watch('', { name, timeoutSeconds: TIMEOUT_SECONDS }, signal);
  // A server that keeps it open for longer does not keep us.
  const timer = setTimeout(() => response.cancel(), 2 * TIMEOUT_SECONDS * 1000);
  let isOver = false;
  try {
    let rest = '';
    for await (const piece of response.body) {
      const lines = (rest + piece).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const { type, object } = line === '' ? {} : fields(JSON.parse(line));
        const node = type === 'ADDED' || type === 'MODIFIED' ? readNode(object) : undefined;
        isOver ||= node !== undefined && node.podCidrs.length > 0;
      }
      if (isOver) return;
    }
  } catch (error) {
    if (signal.aborted) throw error;
    // The claim that follows says what is wrong.
  } finally {
    clearTimeout(timer);
    response.cancel();
  }
}
