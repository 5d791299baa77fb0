/**
 * The daemon's HTTP server: /healthz, /readyz, /metrics and /api/v1/status. It only ever answers questions
 * (GET, HEAD), holds no secrets, and by default listens on the loopback address. Bounded in every
 * direction, so that a stuck or greedy client costs a socket for a few seconds and nothing else.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { formatHttpAddress } from '../config/network-kinds.ts';
import type { HttpAddress } from '../config/settings.ts';
import type { Readiness } from '../desired/pods.ts';
import { type Log, messageWithCauses } from './log.ts';
import type { StatusReport } from './status.ts';

export type Health = { readonly healthy: true } | { readonly healthy: false; readonly reason: string };

/** What is served; asked anew for every request. */
export interface HttpSources {
  /** The daemon works: it may still be waiting for something. Not so: it should be restarted. */
  health(): Health;
  /** A pod attached now works. */
  readiness(): Readiness;
  status(): StatusReport;
  metrics(): Promise<string>;
  readonly metricsType: string;
  /** The one path that there is, on an address that others than operators reach. */
  readonly only?: '/healthz' | undefined;
}

export interface HttpServer {
  /** Where it listens; the port is the one that was given, or that 0 became. */
  readonly address: HttpAddress;
  /** Resolves when the last connection is closed. */
  close(): Promise<void>;
}

/** The address cannot be listened on. */
export class HttpListenError extends Error {
  override readonly name = 'HttpListenError';
  readonly code = 'VTEPD_HTTP_LISTEN';
}

/** How long a client may take for its request, or stop reading, and how long an idle connection is kept. */
const REQUEST_TIMEOUT_MS = 5000;
const STALLED_MS = 10_000;
const KEEP_ALIVE_MS = 5000;
const MAX_CONNECTIONS = 64;
const MAX_HEADER_BYTES = 8 * 1024;

/** Listens until the signal aborts or close() is called. @throws HttpListenError */
export async function serveHttp(
  address: HttpAddress,
  sources: HttpSources,
  log: Log,
  signal: AbortSignal,
): Promise<HttpServer> {
  signal.throwIfAborted();
  const server = createServer(
    {
      headersTimeout: REQUEST_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      keepAliveTimeout: KEEP_ALIVE_MS,
      connectionsCheckingInterval: REQUEST_TIMEOUT_MS,
      maxHeaderSize: MAX_HEADER_BYTES,
    },
    (request, response) => {
      answer(request, response, sources).catch((error: unknown) => {
        log.error('an HTTP request failed', { path: request.url, error });
        if (!response.headersSent) text(response, 500, `${messageWithCauses(error)}\n`);
        else response.destroy();
      });
    },
  );
  server.timeout = STALLED_MS;
  server.maxConnections = MAX_CONNECTIONS;
  await listening(server, address, sources.only === undefined ? '--http' : '--healthz');
  const close = once(() => closed(server));
  const onAbort = () => void close();
  signal.addEventListener('abort', onAbort, { once: true });
  server.once('close', () => signal.removeEventListener('abort', onAbort));
  server.on('error', (error) => log.error('the HTTP server failed', { error }));
  // Between listening and here the signal may have fired.
  if (signal.aborted) onAbort();
  return { address: { host: address.host, port: (server.address() as AddressInfo).port }, close };
}

function listening(server: Server, { host, port }: HttpAddress, option: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (error: NodeJS.ErrnoException) => {
      const place = formatHttpAddress({ host, port });
      const change = `give ${option} another address, or off`;
      const remedy =
        error.code === 'EADDRINUSE'
          ? `something listens there already (another vtepd?): stop it, or ${change}`
          : change;
      reject(new HttpListenError(`cannot listen on ${place} (${error.code}): ${remedy}`, { cause: error }));
    };
    server.once('error', onError);
    server.listen({ host, port }, () => {
      server.off('error', onError);
      resolve();
    });
  });
}

const closed = (server: Server): Promise<void> =>
  new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });

function once<T>(make: () => T): () => T {
  let made: { readonly value: T } | undefined;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}

const PATHS: readonly string[] = ['/healthz', '/readyz', '/metrics', '/api/v1/status'];

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  sources: HttpSources,
): Promise<void> {
  const path = (request.url ?? '/').replace(/[?#].*$/s, '');
  const known = sources.only === undefined ? PATHS : [sources.only];
  if (!known.includes(path)) return text(response, 404, `not found; there is ${known.join(', ')}\n`);
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('Allow', 'GET, HEAD');
    return text(response, 405, 'only GET and HEAD\n');
  }
  if (path === '/metrics') return send(response, 200, sources.metricsType, await sources.metrics());
  if (path === '/api/v1/status') {
    return send(response, 200, 'application/json; charset=utf-8', `${JSON.stringify(sources.status())}\n`);
  }
  const answer = path === '/healthz' ? sources.health() : sources.readiness();
  return 'reason' in answer ? text(response, 503, `${answer.reason}\n`) : text(response, 200, 'ok\n');
}

const text = (response: ServerResponse, code: number, body: string): void =>
  send(response, code, 'text/plain; charset=utf-8', body);

/** Node leaves the body out where the request is a HEAD. */
function send(response: ServerResponse, code: number, type: string, body: string): void {
  response.writeHead(code, {
    'Content-Type': type,
    'Content-Length': Buffer.byteLength(body),
    'Cache-Control': 'no-store',
    'X-Content-Type-Options': 'nosniff',
  });
  response.end(body);
}
