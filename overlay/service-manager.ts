/** Opens the line to the service manager that started the daemon. Without one the daemon works all the same. */
import { NotifySocket } from './kernel/notify-socket.ts';
import { type Log, messageWithCauses } from './ops/log.ts';
import { type NotifierOptions, type ServiceEnvironment, ServiceNotifier } from './ops/sd-notify.ts';

/** `monotonicMicros` is Node's high-resolution clock, which is CLOCK_MONOTONIC. */
const monotonicMicros = (): bigint => process.hrtime.bigint() / 1000n;

export interface OpenNotifier {
  readonly notifier: ServiceNotifier;
  close(): void;
}

/** Tells until it is closed; that it stops when the signal aborts. Undefined: there is nobody to tell. */
export function openNotifier(
  service: ServiceEnvironment | undefined,
  sources: Pick<NotifierOptions, 'readiness' | 'stall' | 'summary'>,
  log: Log,
  signal: AbortSignal,
): OpenNotifier | undefined {
  if (service === undefined) return undefined;
  let socket: NotifySocket;
  try {
    socket = NotifySocket.open(service.socketName);
  } catch (error) {
    log.warn('the service manager is told nothing', { reason: messageWithCauses(error) });
    return undefined;
  }
  const send = (message: string): boolean => socket.send(message);
  const notifier = new ServiceNotifier({
    ...sources,
    watchdogMs: service.watchdogMs,
    send,
    monotonicMicros,
    log,
  });
  const onAbort = (): void => notifier.stopping();
  signal.addEventListener('abort', onAbort, { once: true });
  if (signal.aborted) onAbort();
  return {
    notifier,
    close() {
      signal.removeEventListener('abort', onAbort);
      notifier.close();
      socket[Symbol.dispose]();
    },
  };
}
