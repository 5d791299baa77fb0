/**
 * What the store needs of HTTP: requests to one Kubernetes API server, with whatever credentials are to be
 * shown it. Who makes the connections (overlay/leases/kubernetes-http.ts) is not this room's business.
 */

export interface ApiRequest {
  readonly method: 'GET' | 'PATCH';
  /** With the query: `/api/v1/nodes?limit=500`. */
  readonly path: string;
  readonly accept?: string | undefined;
  readonly contentType?: string | undefined;
  readonly body?: string | undefined;
}

export interface ApiResponse {
  readonly status: number;
  /** Of the header `Retry-After`, where it has a number. */
  readonly retryAfterSeconds: number | undefined;
  /** UTF-8 text in pieces, as they come. Whoever does not read it to its end calls `cancel`. */
  readonly body: AsyncIterable<string>;
  /** Ends it, and its connection. */
  cancel(): void;
}

export interface KubernetesTransport {
  /** `https://10.96.0.1:443`: no credentials in it, so it may be shown. */
  readonly server: string;
  /**
   * Resolves when the response's head is there. Rejects with the signal's reason after an abort, with
   * `CredentialsError` when there is nothing to show the server, else with whatever the connection failed by.
   */
  request(request: ApiRequest, signal: AbortSignal): Promise<ApiResponse>;
  /** The server refused what was shown: a rotated token is read anew for the next request. */
  forgetCredentials(): void;
  /** Ends every connection: requests under way fail, the next one connects anew. */
  reconnect(): void;
  close(): void;
}

/** A token, certificate or helper program that the configuration names cannot be used. */
export class CredentialsError extends Error {
  override readonly name = 'CredentialsError';
  readonly code = 'VTEPD_KUBERNETES_CREDENTIALS';
}
