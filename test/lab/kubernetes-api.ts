/**
 * An HTTP double of the Kubernetes API server, as far as Nodes go: it tells the truth about the API, not about
 * any client. Lists in chunks at one resource version, watches that stream, bookmarks, 410 after a compaction,
 * patches of two kinds with their conflicts, tokens and RBAC; and, on command, what goes wrong with servers:
 * throttling, failures, answers that are lost, connections that break or fall silent.
 *
 * Facts from Kubernetes' documentation ("API Concepts", "Using RBAC Authorization") and the API reference. What is
 * not served is answered as unknown, so that nobody believes in it.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import {
  type JsonObject,
  KubernetesObjects,
  nameOf,
  objectOf,
  patched,
  type StoredEvent,
  type Subresource,
} from './kubernetes-objects.ts';
import { ApiFailure, expired, forbidden, statusOf, unauthorized } from './kubernetes-status.ts';

export interface PolicyRule {
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
}

/** What the project's manifest grants. */
export const VTEPD_RULES: readonly PolicyRule[] = [
  { resources: ['nodes'], verbs: ['get', 'list', 'watch', 'patch'] },
  { resources: ['nodes/status'], verbs: ['patch'] },
];

export interface KubernetesApiOptions {
  /** Between two bookmarks of a watch; a real server's are a minute apart. */
  readonly bookmarkIntervalMs?: number;
  readonly tls?: { readonly cert: Buffer; readonly key: Buffer };
  /** How a watch from a forgotten version is refused: real servers do it in the stream, proxies of them at once. */
  readonly refuseOldWatches?: 'event' | 'status';
}

interface Watcher {
  readonly response: ServerResponse;
  /** Nothing before this has been sent. */
  sent: number;
  readonly name: string | undefined;
  readonly hasBookmarks: boolean;
  isSilent: boolean;
}

const LIST_KIND = { kind: 'NodeList', apiVersion: 'v1' };

export class KubernetesApi {
  readonly objects = new KubernetesObjects();
  /** `GET /api/v1/nodes?...`, in order. */
  readonly requests: string[] = [];
  /** Told of each request before it is served: `PATCH /api/v1/nodes/a`. */
  onRequest: ((request: string) => void) | undefined;
  /** Who may do what; absent: whoever comes may do everything. */
  rules: readonly PolicyRule[] | undefined;
  /** Token to user; absent: whoever comes is let in. */
  tokens: Map<string, string> | undefined;
  readonly #options: KubernetesApiOptions;
  #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #watchers = new Set<Watcher>();
  readonly #faults: ((request: IncomingMessage) => ApiFailure | 'break' | undefined)[] = [];
  #isSilent = false;
  #isHanging = false;
  #isStalling = false;
  #losesAnswers = 0;
  #bookmarks: NodeJS.Timeout | undefined;

  constructor(options: KubernetesApiOptions = {}) {
    this.#options = options;
    this.#server = this.#newServer();
    this.objects.listen((event) => {
      for (const watcher of this.#watchers) this.#send(watcher, event);
    });
  }

  /** On the loopback; `listen` elsewhere. */
  static async start(options: KubernetesApiOptions = {}): Promise<KubernetesApi> {
    const api = new KubernetesApi(options);
    api.listen(0, '127.0.0.1');
    await api.listening();
    return api;
  }

  #newServer(): Server {
    const { tls } = this.#options;
    const serve = (request: IncomingMessage, response: ServerResponse): void => {
      void this.#serve(request, response);
    };
    const server = tls === undefined ? createServer(serve) : createTlsServer(tls, serve);
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
    return server;
  }

  /** Without a host the socket is open when this returns, and so in the namespace that the thread is in. */
  listen(port: number, host?: string): void {
    const everyMs = this.#options.bookmarkIntervalMs ?? 60_000;
    this.#bookmarks = setInterval(() => this.sendBookmarks(), everyMs).unref();
    this.#server.listen(port, host);
  }

  async listening(): Promise<void> {
    if (this.#server.listening) return;
    await new Promise<void>((resolve, reject) => {
      this.#server.once('listening', resolve).once('error', reject);
    });
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `${this.#options.tls === undefined ? 'http' : 'https'}://127.0.0.1:${this.port}`;
  }

  get watchers(): number {
    return this.#watchers.size;
  }

  /** Nobody is served any more; what is stored stays, for another `listen`. */
  async close(): Promise<void> {
    clearInterval(this.#bookmarks);
    this.breakConnections();
    const server = this.#server;
    if (!server.listening) return;
    this.#server = this.#newServer();
    await new Promise((resolve) => {
      server.close(resolve);
      this.breakConnections();
    });
  }

  // ---- what goes wrong on command

  /** The next requests are refused by 429, with Retry-After where it is given. */
  throttle(times: number, retryAfterSeconds?: number): void {
    const more = retryAfterSeconds === undefined ? {} : { retryAfterSeconds };
    const message = 'The server has received too many requests and has asked us to try again later';
    this.#next(times, () => new ApiFailure(429, 'TooManyRequests', message, more));
  }

  /** The next requests fail with a status of 500 to 599. */
  fail(times: number, status: number): void {
    this.#next(times, () => new ApiFailure(status, 'InternalError', 'etcdserver: request timed out'));
  }

  /** The next requests find their connection broken. */
  refuseConnections(times: number): void {
    this.#next(times, () => 'break');
  }

  /** The next patches are carried out, and nobody hears of it. */
  loseAnswers(times: number): void {
    this.#losesAnswers += times;
  }

  /** Every connection ends. */
  breakConnections(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Watches end as a server ends them whose time is over. */
  endWatches(): void {
    for (const watcher of this.#watchers) this.#end(watcher);
  }

  /** Watches that stand, and those that come, say nothing any more; their connections stay. */
  silence(isSilent: boolean): void {
    this.#isSilent = isSilent;
    for (const watcher of this.#watchers) watcher.isSilent ||= isSilent;
  }

  /** Requests are taken, and never answered. */
  hang(isHanging: boolean): void {
    this.#isHanging = isHanging;
  }

  /** Answers begin, and never end. */
  stall(isStalling: boolean): void {
    this.#isStalling = isStalling;
  }

  compact(): void {
    this.objects.compact();
  }

  sendBookmarks(): void {
    for (const watcher of this.#watchers) {
      if (watcher.isSilent || !watcher.hasBookmarks) continue;
      const resourceVersion = String(this.objects.revision);
      const object = {
        kind: 'Node',
        apiVersion: 'v1',
        metadata: { resourceVersion, creationTimestamp: null },
      };
      watcher.sent = this.objects.revision;
      write(watcher.response, { type: 'BOOKMARK', object });
    }
  }

  #next(times: number, fault: () => ApiFailure | 'break'): void {
    for (let i = 0; i < times; i++) this.#faults.push(fault);
  }

  // ---- serving

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = '', url = '' } = request;
    this.requests.push(`${method} ${url}`);
    let body = '';
    try {
      for await (const piece of request.setEncoding('utf8')) body += piece;
      this.onRequest?.(`${method} ${url}`);
      if (this.#isHanging) return;
      const fault = this.#faults.shift()?.(request);
      if (fault === 'break') {
        request.socket.destroy();
        return;
      }
      if (fault !== undefined) throw fault;
      this.#route(request, response, new URL(url, 'http://api'), body);
    } catch (error) {
      if (error instanceof ApiFailure) refuse(response, error);
      else if (!request.destroyed || !response.destroyed) {
        refuse(response, new ApiFailure(500, 'InternalError', String(error)));
      }
    }
  }

  #route(request: IncomingMessage, response: ServerResponse, url: URL, body: string): void {
    const user = this.#authenticate(request);
    const [, name, sub] = /^\/api\/v1\/nodes(?:\/([^/]+))?(\/status)?$/.exec(url.pathname) ?? [];
    if (!url.pathname.startsWith('/api/v1/nodes') || (sub !== undefined && request.method !== 'PATCH')) {
      throw new ApiFailure(404, 'NotFound', 'the server could not find the requested resource');
    }
    const query = url.searchParams;
    const isWatch = ['true', '1'].includes(query.get('watch') ?? '');
    const resource = `nodes${sub ?? ''}`;
    if (request.method === 'PATCH' && name !== undefined) {
      this.#authorize(user, 'patch', resource, name);
      const patch = this.#patch(
        request,
        decodeURIComponent(name),
        sub === undefined ? 'main' : 'status',
        body,
      );
      if (this.#losesAnswers > 0) {
        this.#losesAnswers--;
        request.socket.destroy();
      } else this.#answer(response, patch);
    } else if (request.method !== 'GET') {
      throw new ApiFailure(
        405,
        'MethodNotAllowed',
        'the server does not allow this method on the requested resource',
      );
    } else if (name !== undefined) {
      this.#authorize(user, 'get', resource, name);
      this.#answer(response, this.objects.get(decodeURIComponent(name)));
    } else if (isWatch) {
      this.#authorize(user, 'watch', resource);
      this.#watch(response, query);
    } else {
      this.#authorize(user, 'list', resource);
      this.#answer(response, this.#list(request, query));
    }
  }

  #answer(response: ServerResponse, body: object): void {
    const text = JSON.stringify(body);
    response.writeHead(200, JSON_HEAD);
    if (this.#isStalling) response.write(text.slice(0, text.length / 2));
    else response.end(text);
  }

  #authenticate({ headers: { authorization } }: IncomingMessage): string {
    if (this.tokens === undefined) return 'system:anonymous';
    const [, token = ''] = /^Bearer (.+)$/.exec(authorization ?? '') ?? [];
    const user = this.tokens.get(token);
    if (user === undefined) throw unauthorized();
    return user;
  }

  #authorize(user: string, verb: string, resource: string, name?: string): void {
    const isGranted = this.rules?.some(
      ({ resources, verbs }) => resources.includes(resource) && verbs.includes(verb),
    );
    if (isGranted === false) throw forbidden(user, verb, resource, name);
  }

  /** At most `limit` Nodes by name, all pages at the version of the first. */
  #list(request: IncomingMessage, query: URLSearchParams): object {
    const limit = Number(query.get('limit') ?? '0');
    const token = query.get('continue') ?? '';
    const { revision, after } =
      token === '' ? { revision: this.objects.revision, after: '' } : readToken(token);
    // Offered with a 410: goes on where it was, at whatever is the newest version.
    const isFresh = revision === FRESH;
    const at = isFresh ? this.objects.revision : revision;
    const rest = this.objects.at(at, writeToken(FRESH, after)).filter((node) => nameOf(node) > after);
    const items = limit > 0 ? rest.slice(0, limit) : rest;
    const last = items.at(-1);
    const isMore = items.length < rest.length && last !== undefined;
    const metadata = {
      resourceVersion: String(at),
      ...(isMore && {
        continue: writeToken(at, nameOf(last)),
        remainingItemCount: rest.length - items.length,
      }),
    };
    if (/as=PartialObjectMetadataList/.test(request.headers.accept ?? '')) {
      const kind = { kind: 'PartialObjectMetadataList', apiVersion: 'meta.k8s.io/v1' };
      return { ...kind, metadata, items: items.map((node) => ({ metadata: node.metadata ?? {} })) };
    }
    // Items of a list carry no kind of their own.
    return { ...LIST_KIND, metadata, items: items.map(({ kind, apiVersion, ...item }) => item) };
  }

  /** Nothing is written any more to what has ended. */
  #end(watcher: Watcher): void {
    this.#watchers.delete(watcher);
    watcher.response.end();
  }

  #watch(response: ServerResponse, query: URLSearchParams): void {
    const [, name] = /^metadata\.name=(.+)$/.exec(query.get('fieldSelector') ?? '') ?? [];
    const given = query.get('resourceVersion') ?? '';
    let events: StoredEvent[];
    try {
      events = given === '' || given === '0' ? this.#present() : this.objects.since(Number(given));
    } catch (error) {
      if (!(error instanceof ApiFailure) || this.#options.refuseOldWatches === 'status') throw error;
      response.writeHead(200, JSON_HEAD);
      write(response, { type: 'ERROR', object: statusOf(error) });
      response.end();
      return;
    }
    response.writeHead(200, JSON_HEAD).flushHeaders();
    const watcher: Watcher = {
      response,
      // From a version of the future on, nothing is sent before it.
      sent: given === '' || given === '0' ? 0 : Number(given),
      name,
      hasBookmarks: query.get('allowWatchBookmarks') === 'true',
      isSilent: this.#isSilent,
    };
    for (const event of events) this.#send(watcher, event);
    this.#watchers.add(watcher);
    const timeoutSeconds = Number(query.get('timeoutSeconds') ?? '0');
    const timer =
      timeoutSeconds > 0 ? setTimeout(() => this.#end(watcher), timeoutSeconds * 1000).unref() : undefined;
    response.once('close', () => {
      clearTimeout(timer);
      this.#watchers.delete(watcher);
    });
  }

  /** What a watch without a version begins with. */
  #present(): StoredEvent[] {
    return this.objects.names.map((name) => {
      const object = this.objects.get(name);
      return { type: 'ADDED', revision: Number(objectOf(object.metadata).resourceVersion), object };
    });
  }

  #send(watcher: Watcher, { revision, type, object }: StoredEvent): void {
    if (watcher.isSilent || revision <= watcher.sent) return;
    if (watcher.name !== undefined && watcher.name !== nameOf(object)) return;
    // Those that stand already come in the order of their names.
    watcher.sent = Math.max(watcher.sent, this.#watchers.has(watcher) ? revision : watcher.sent);
    write(watcher.response, { type, object });
  }

  #patch(request: IncomingMessage, name: string, subresource: Subresource, body: string): JsonObject {
    const type = request.headers['content-type'] ?? '';
    const kind = PATCH_KINDS[type];
    if (kind === undefined) {
      throw new ApiFailure(
        415,
        'UnsupportedMediaType',
        `the body of the request was in an unknown format: ${type}`,
      );
    }
    const before = this.objects.get(name);
    return this.objects.replace(name, patched(before, JSON.parse(body) as JsonObject, kind, subresource));
  }
}

const PATCH_KINDS: Readonly<Record<string, 'merge' | 'strategic' | undefined>> = {
  'application/merge-patch+json': 'merge',
  'application/strategic-merge-patch+json': 'strategic',
};
const JSON_HEAD = { 'content-type': 'application/json' };

/** In a token: not at the version of the list's beginning, but now. */
const FRESH = -1;
const writeToken = (revision: number, after: string): string =>
  Buffer.from(JSON.stringify({ v: 'meta.k8s.io/v1', rv: revision, start: after })).toString('base64url');

function readToken(token: string): { readonly revision: number; readonly after: string } {
  try {
    const { rv, start } = JSON.parse(Buffer.from(token, 'base64url').toString());
    return { revision: Number(rv), after: String(start) };
  } catch {
    throw expired('the continue token is not one of ours');
  }
}

function write(response: ServerResponse, event: object): void {
  response.write(`${JSON.stringify(event)}\n`);
}

function refuse(response: ServerResponse, failure: ApiFailure): void {
  if (response.headersSent) {
    response.end();
    return;
  }
  const { retryAfterSeconds } = failure;
  const more = retryAfterSeconds === undefined ? {} : { 'retry-after': String(retryAfterSeconds) };
  response.writeHead(failure.status, { ...JSON_HEAD, ...more }).end(JSON.stringify(statusOf(failure)));
}
