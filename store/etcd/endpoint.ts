/** Where an etcd answers, as `--etcd-endpoints` writes it. */
import { printable } from '../printable.ts';

export interface Endpoint {
  /** `https://etcd-1:2379`: no path, and never a user part, so it may be shown. */
  readonly url: string;
  readonly secure: boolean;
}

/** The text names no etcd. */
export class EndpointError extends Error {
  readonly code = 'VTEPD_ETCD_ENDPOINT';
  override readonly name = 'EndpointError';
}

/** Reads `http://`, `https://` or nothing (http), a host, and a port (2379). @throws EndpointError */
export function parseEndpoint(text: string): Endpoint {
  const withScheme = /^[a-z+]+:\/\//i.test(text) ? text : `http://${text}`;
  let url: URL;
  try {
    url = new URL(withScheme);
  } catch {
    throw refuse(text);
  }
  const secure = url.protocol === 'https:';
  if (
    (!secure && url.protocol !== 'http:') ||
    url.hostname === '' ||
    url.pathname.length > 1 ||
    url.search !== ''
  ) {
    throw refuse(text);
  }
  // URL leaves out a port that is the scheme's own: 80 and 443 are then meant as they are written.
  const written = /:(\d+)\/?$/.exec(withScheme)?.[1];
  return { url: `${url.protocol}//${url.hostname}:${url.port || written || '2379'}`, secure };
}

/** What is before an `@` may be a password. */
function refuse(text: string): EndpointError {
  const shown = printable(text.slice(text.lastIndexOf('@') + 1));
  return new EndpointError(`"${shown}" is not an etcd endpoint such as https://etcd-1:2379`);
}
