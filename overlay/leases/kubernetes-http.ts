/**
 * Connections to a Kubernetes API server: Node's own HTTP client, which streams, with the credentials of the one
 * who runs us. Kept alive, and few: a watch has one for itself, everything else takes turns.
 */
import {
  type ClientRequest,
  Agent as HttpAgent,
  type IncomingMessage,
  request as requestHttp,
} from 'node:http';
import { Agent as HttpsAgent, type RequestOptions, request as requestHttps } from 'node:https';
import type { ApiRequest, ApiResponse, KubernetesTransport } from '../../store/kubernetes/transport.ts';
import { packageVersion } from '../ops/package.ts';

export interface KubernetesAccess {
  /** Scheme, host and port, and a path where the API is below one. */
  readonly server: string;
  /**
   * What goes into a request beside what is asked: headers, certificates, authorities.
   * @param isRenewed what was shown before was refused
   * @throws CredentialsError
   */
  credentials(isRenewed: boolean): Promise<RequestOptions>;
}

/** A dead server is noticed by its kernel's silence, under a watch that has nothing to say. */
const KEEPALIVE_MS = 15_000;
/** A claim, a list and a condition at once; a watch has one more. */
const MAX_SOCKETS = 8;

/** Opens no connection yet. */
export function openTransport(access: KubernetesAccess): KubernetesTransport {
  return new HttpTransport(access);
}

class HttpTransport implements KubernetesTransport {
  readonly server: string;
  readonly #access: KubernetesAccess;
  readonly #url: URL;
  #agent: HttpAgent;
  #isRefused = false;

  constructor(access: KubernetesAccess) {
    this.#access = access;
    this.#url = new URL(access.server);
    this.server = this.#url.origin + this.#url.pathname.replace(/\/$/, '');
    this.#agent = this.#newAgent();
  }

  async request(request: ApiRequest, signal: AbortSignal): Promise<ApiResponse> {
    const isRenewed = this.#isRefused;
    this.#isRefused = false;
    const { headers, ...credentials } = await this.#access.credentials(isRenewed);
    signal.throwIfAborted();
    const { method, path, accept = 'application/json', contentType, body } = request;
    const url = new URL(this.server + path);
    const options: RequestOptions = {
      agent: this.#agent,
      ...credentials,
      method,
      headers: {
        ...headers,
        accept,
        'user-agent': `vtepd/${packageVersion}`,
        ...(body !== undefined && {
          'content-type': contentType ?? 'application/json',
          'content-length': Buffer.byteLength(body),
        }),
      },
    };
    const sent = this.#isSecure ? requestHttps(url, options) : requestHttp(url, options);
    return answerTo(sent, body, signal);
  }

  forgetCredentials(): void {
    this.#isRefused = true;
  }

  reconnect(): void {
    const before = this.#agent;
    this.#agent = this.#newAgent();
    before.destroy();
  }

  close(): void {
    this.#agent.destroy();
  }

  get #isSecure(): boolean {
    return this.#url.protocol === 'https:';
  }

  #newAgent(): HttpAgent {
    const options = { keepAlive: true, keepAliveMsecs: KEEPALIVE_MS, maxSockets: MAX_SOCKETS };
    return this.#isSecure ? new HttpsAgent(options) : new HttpAgent(options);
  }
}

/** The signal ends the request until the head is there; from then on the response's owner does. */
function answerTo(sent: ClientRequest, body: string | undefined, signal: AbortSignal): Promise<ApiResponse> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      sent.destroy();
      reject(signal.reason);
    };
    signal.addEventListener('abort', abort, { once: true });
    sent.once('socket', (socket) => socket.setKeepAlive(true, KEEPALIVE_MS));
    // Errors after the head reach the reader through the response.
    sent.on('error', (error) => {
      signal.removeEventListener('abort', abort);
      reject(error);
    });
    sent.once('response', (response) => {
      signal.removeEventListener('abort', abort);
      resolve(responseOf(response));
    });
    sent.end(body);
  });
}

function responseOf(response: IncomingMessage): ApiResponse {
  response.setEncoding('utf8');
  // Without a reader an error would end the process; with one it is the reader's.
  response.on('error', () => {});
  const seconds = Number(response.headers['retry-after'] ?? Number.NaN);
  return {
    status: response.statusCode ?? 0,
    retryAfterSeconds: Number.isFinite(seconds) && seconds >= 0 ? seconds : undefined,
    body: response,
    cancel: () => response.destroy(),
  };
}
