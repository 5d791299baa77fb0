/** Asks a running daemon of this node for its status, over HTTP. */
import { get, type IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { formatHttpAddress } from '../config/network-kinds.ts';
import type { HttpAddress } from '../config/settings.ts';
import { messageWithCauses } from './log.ts';
import type { StatusReport } from './status.ts';

const ANSWER_TIMEOUT_MS = 10_000;
/** How much of an unexpected answer is shown. */
const MAX_QUOTED = 200;

/** The daemon did not answer with a status. */
export class StatusUnavailableError extends Error {
  override readonly name = 'StatusUnavailableError';
  readonly code = 'VTEPD_STATUS_UNAVAILABLE';
}

export interface StatusAnswer {
  readonly report: StatusReport;
  /** As it came. */
  readonly body: string;
}

/**
 * @param connect opens the connection; a plain one unless told
 * @throws StatusUnavailableError; the signal's reason when aborted
 */
export async function askStatus(
  address: HttpAddress,
  signal: AbortSignal,
  connect?: () => Socket,
): Promise<StatusAnswer> {
  const body = await fetchText(reachable(address), '/api/v1/status', signal, connect);
  return { report: reportFrom(body, address), body };
}

/** Where a daemon that listens on every address answers on this machine. */
function reachable({ host, port }: HttpAddress): HttpAddress {
  if (host === '0.0.0.0') return { host: '127.0.0.1', port };
  return host === '::' ? { host: '::1', port } : { host, port };
}

function fetchText(
  address: HttpAddress,
  path: string,
  signal: AbortSignal,
  connect: (() => Socket) | undefined,
): Promise<string> {
  const url = `http://${formatHttpAddress(address)}${path}`;
  return new Promise((resolve, reject) => {
    const fail = (error: unknown) => {
      if (signal.aborted) return reject(signal.reason);
      const remedy = 'is `vtepd run` running here, in this network namespace, with this --http?';
      const message = `no vtepd answers at ${url} (${messageWithCauses(error)}): ${remedy}`;
      reject(new StatusUnavailableError(message, { cause: error }));
    };
    // Node opens the connection as it is told only where there is no agent.
    const connection = connect === undefined ? { agent: false } : { createConnection: connect };
    const request = get(url, { signal, ...connection }, (response) => {
      collect(response).then((text) => {
        if (response.statusCode === 200) return resolve(text);
        const answer = `HTTP ${response.statusCode}: ${text.slice(0, MAX_QUOTED).trim()}`;
        return reject(new StatusUnavailableError(`${url} answers ${answer}`));
      }, fail);
    });
    request.setTimeout(ANSWER_TIMEOUT_MS, () =>
      request.destroy(new Error(`no answer in ${ANSWER_TIMEOUT_MS / 1000} s`)),
    );
    request.on('error', fail);
  });
}

async function collect(response: IncomingMessage): Promise<string> {
  response.setEncoding('utf8');
  let text = '';
  for await (const part of response) text += part;
  return text;
}

/** Our own daemon is trusted with the details; that it is one is not taken for granted. */
function reportFrom(body: string, address: HttpAddress): StatusReport {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body);
  } catch {
    parsed = undefined;
  }
  if (isReport(parsed)) return parsed;
  throw new StatusUnavailableError(
    `what answers at ${formatHttpAddress(address)} is not vtepd: check --http`,
  );
}

const isReport = (value: unknown): value is StatusReport =>
  typeof value === 'object' &&
  value !== null &&
  'node' in value &&
  'version' in value &&
  'reconcile' in value;
