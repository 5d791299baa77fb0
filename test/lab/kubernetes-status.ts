/** What the API server of the lab refuses with: Kubernetes' Status objects, worded as it words them. */

/** Thrown by whatever serves a request; becomes the answer. */
export class ApiFailure extends Error {
  override readonly name = 'ApiFailure';
  readonly status: number;
  readonly reason: string;
  readonly retryAfterSeconds: number | undefined;
  /** For a list that was begun too long ago: how to go on, if one must, without being a snapshot. */
  readonly continueToken: string | undefined;
  constructor(
    status: number,
    reason: string,
    message: string,
    more: { readonly retryAfterSeconds?: number; readonly continueToken?: string } = {},
  ) {
    super(message);
    this.status = status;
    this.reason = reason;
    this.retryAfterSeconds = more.retryAfterSeconds;
    this.continueToken = more.continueToken;
  }
}

export const statusOf = ({ status, reason, message, continueToken }: ApiFailure): object => ({
  kind: 'Status',
  apiVersion: 'v1',
  metadata: continueToken === undefined ? {} : { continue: continueToken },
  status: 'Failure',
  message,
  reason,
  code: status,
});

export const notFound = (name: string): ApiFailure =>
  new ApiFailure(404, 'NotFound', `nodes "${name}" not found`);

export const conflict = (name: string): ApiFailure =>
  new ApiFailure(
    409,
    'Conflict',
    `Operation cannot be fulfilled on nodes "${name}": the object has been modified; please apply your changes to the latest version and try again`,
  );

export const expired = (message: string, continueToken?: string): ApiFailure =>
  new ApiFailure(410, 'Expired', message, continueToken === undefined ? {} : { continueToken });

export const invalid = (name: string, problem: string): ApiFailure =>
  new ApiFailure(422, 'Invalid', `Node "${name}" is invalid: ${problem}`);

export const forbidden = (user: string, verb: string, resource: string, name = ''): ApiFailure => {
  const which = name === '' ? '' : ` "${name}"`;
  const message = `nodes${which} is forbidden: User "${user}" cannot ${verb} resource "${resource}" in API group "" at the cluster scope`;
  return new ApiFailure(403, 'Forbidden', message);
};

export const unauthorized = (): ApiFailure => new ApiFailure(401, 'Unauthorized', 'Unauthorized');
