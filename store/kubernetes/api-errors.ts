/**
 * What a failed request to the Kubernetes API means. A permission that is missing is named together with the
 * rule that grants it, since whoever reads the message is the one who can.
 */
import { StoreAccessError, StoreUnavailableError } from '../errors.ts';
import { printable } from '../printable.ts';
import { CredentialsError } from './transport.ts';

/** The server answered that it will not: `status` is HTTP's, `reason` is Kubernetes' word for it. */
export class ApiStatusError extends StoreUnavailableError {
  readonly status: number;
  readonly reason: string;
  constructor(status: number, reason: string, message: string) {
    super(message);
    this.status = status;
    this.reason = reason;
  }
}

/** We may not: the message has the rule that is missing. */
export class ForbiddenError extends StoreAccessError {}

/** The request was sent, or may have been, and what became of it is not known: read back before writing again. */
export class LostAnswerError extends StoreUnavailableError {}

/** What was to be done, in RBAC's words. */
export interface Operation {
  readonly verb: 'get' | 'list' | 'watch' | 'patch';
  readonly resource: 'nodes' | 'nodes/status';
}

const HTTP = { unauthorized: 401, forbidden: 403, gone: 410 } as const;

export const isStatus = (error: unknown, ...statuses: readonly number[]): error is ApiStatusError =>
  error instanceof ApiStatusError && statuses.includes(error.status);

/** History before some revision is gone. */
export const isExpired = (error: unknown): boolean => isStatus(error, HTTP.gone);

/** The typed error of an answer that is none of 200 to 299; `body` is what came with it. */
export function statusError(server: string, operation: Operation, status: number, body: string): Error {
  const { reason, message } = readStatus(body);
  return errorOf(server, operation, status, reason, message);
}

/** The typed error of an ERROR event in a watch, whose object is a Status. */
export function eventError(server: string, operation: Operation, object: unknown): Error {
  const { code, reason, message } = fieldsOf(object);
  return errorOf(server, operation, typeof code === 'number' ? code : 0, textOf(reason), textOf(message));
}

function errorOf(
  server: string,
  { verb, resource }: Operation,
  status: number,
  reason: string,
  message: string,
): Error {
  const said = message === '' ? `HTTP ${status}` : printable(message, 240);
  const what = `Kubernetes ${server}: ${verb} ${resource}: ${said}`;
  if (status === HTTP.forbidden) {
    const rule = `{apiGroups: [""], resources: ["${resource}"], verbs: ["${verb}"]}`;
    return new ForbiddenError(
      `${what}; the rule ${rule} grants it, in a ClusterRole that is bound to who we are`,
    );
  }
  if (status === HTTP.unauthorized) {
    const remedy = "check the service account's token, or the credentials in --kubeconfig-file";
    return new StoreAccessError(`${what}; ${remedy}`);
  }
  return new ApiStatusError(status, reason, what);
}

/** The typed error of a request that got no answer, or only a part of it. */
export function connectionError(server: string, { verb, resource }: Operation, error: unknown): Error {
  const reason = error instanceof Error ? error.message : String(error);
  const message = `Kubernetes ${server}: ${verb} ${resource}: ${printable(reason, 200)}`;
  const options = { cause: error };
  if (error instanceof CredentialsError) return new StoreAccessError(message, options);
  const code = textOf(fieldsOf(error).code);
  if (/CERT|SELF_SIGNED|VERIFY|ALTNAME|SSL|TLS|EPROTO/.test(code)) {
    const remedy = "check the server's certificate, its authority, and the client certificate";
    return new StoreAccessError(`${message}; ${remedy}`, options);
  }
  if (/ECONNREFUSED|ENOTFOUND|EHOSTUNREACH|ENETUNREACH|EAI_AGAIN/.test(code)) {
    return new LostAnswerError(`${message}; does it run, and is its address right?`, options);
  }
  return new LostAnswerError(message, options);
}

/** A Status (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status), or what a proxy says. */
function readStatus(body: string): { readonly reason: string; readonly message: string } {
  try {
    const { reason, message } = fieldsOf(JSON.parse(body));
    return { reason: textOf(reason), message: textOf(message) };
  } catch {
    return { reason: '', message: body.trim() };
  }
}

const fieldsOf = (value: unknown): Record<string, unknown> =>
  typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};

const textOf = (value: unknown): string => (typeof value === 'string' ? value : '');
