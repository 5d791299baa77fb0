/**
 * What a failed gRPC call to etcd means, in three questions: did the server answer, may the call have taken
 * effect all the same, and whose business is it to mend it.
 */
import { StoreAccessError, StoreUnavailableError } from '../errors.ts';
import { printable } from '../printable.ts';

/** The call was sent, and what became of it is not known: read back before writing again. */
export class LostAnswerError extends StoreUnavailableError {}

/** etcd answered that it will not: the same call would be refused again. */
export class RefusedCallError extends StoreUnavailableError {
  readonly reason:
    | 'compacted'
    | 'too-large'
    | 'lease-exists'
    | 'lease-not-found'
    | 'auth-not-enabled'
    | 'other';
  constructor(reason: RefusedCallError['reason'], message: string, options?: ErrorOptions) {
    super(message, options);
    this.reason = reason;
  }
}

/** gRPC's status codes that are used here (https://grpc.io/docs/guides/status-codes). */
const CODE = {
  cancelled: 1,
  deadlineExceeded: 4,
  permissionDenied: 7,
  resourceExhausted: 8,
  unavailable: 14,
  unauthenticated: 16,
} as const;

const REASONS: readonly (readonly [RegExp, RefusedCallError['reason']])[] = [
  [/required revision has been compacted/, 'compacted'],
  [/larger than max|message larger/i, 'too-large'],
  [/lease already exists/, 'lease-exists'],
  [/requested lease not found/, 'lease-not-found'],
  [/authentication is not enabled/, 'auth-not-enabled'],
];

/** The token is not known any more (etcd restarted, its five minutes are over), or one is wanted now. */
export const wantsNewToken = (error: unknown): boolean =>
  /invalid auth token|revision of auth store is old|user name is empty/.test(detailsOf(error));

/** Nothing was sent: any other endpoint may be asked, for writes as well. */
export const wasNotSent = (error: unknown): boolean =>
  codeOf(error) === CODE.unavailable &&
  /No connection established|Name resolution failed/.test(detailsOf(error));

/** The typed error of a failed call to an endpoint. */
export function callError(
  endpoint: string,
  call: string,
  error: unknown,
): StoreUnavailableError | StoreAccessError {
  const details = detailsOf(error);
  const message = `etcd ${endpoint}: ${call}: ${printable(details, 200)}`;
  const options = { cause: error };
  if (isDenied(error, details)) {
    const remedy = 'check --etcd-username, --etcd-password and the certificates';
    return new StoreAccessError(`${message}; ${remedy}`, options);
  }
  const known = REASONS.find(([pattern]) => pattern.test(details));
  if (known !== undefined) return new RefusedCallError(known[1], message, options);
  if (wasNotSent(error)) return new StoreUnavailableError(`${message}; check --etcd-endpoints`, options);
  const code = codeOf(error);
  if (code === CODE.unavailable || code === CODE.deadlineExceeded || code === CODE.cancelled) {
    return new LostAnswerError(message, options);
  }
  // Internal and unknown errors are a broken stream as often as an answer.
  if (code === undefined || !details.includes('etcdserver:')) return new LostAnswerError(message, options);
  return new RefusedCallError('other', message, options);
}

function isDenied(error: unknown, details: string): boolean {
  const code = codeOf(error);
  if (code === CODE.permissionDenied || code === CODE.unauthenticated) return true;
  if (/authentication failed|permission denied|user name is empty/.test(details)) return true;
  // A handshake that fails is reported as an endpoint that is unavailable.
  return code === CODE.unavailable && /certificate|altnames|handshake|SSL|TLS|wrong version/i.test(details);
}

const codeOf = (error: unknown): number | undefined =>
  typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'number'
    ? error.code
    : undefined;

function detailsOf(error: unknown): string {
  if (
    typeof error === 'object' &&
    error !== null &&
    'details' in error &&
    typeof error.details === 'string'
  ) {
    return error.details;
  }
  return error instanceof Error ? error.message : String(error);
}
