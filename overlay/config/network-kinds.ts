/** The kinds of option value that are places on a network: see kinds.ts. */
import { z } from 'zod/v3';
import { tryAddress } from '../../store/address.ts';
import { REDACTED, withoutUser } from '../ops/redact.ts';
import { type Kind, matching } from './kinds.ts';
import { Secret } from './secret.ts';
import type { HttpAddress } from './settings.ts';

/** Where an etcd listens. A user part is taken out at once, and kept apart. */
export interface Endpoint {
  readonly url: string;
  readonly user?: { readonly username: string; readonly password: Secret } | undefined;
}

export const endpoint: Kind<Endpoint> = {
  placeholder: 'URL',
  schema: z.string().transform((text, context) => {
    const parsed = endpointFrom(text);
    if (typeof parsed !== 'string') return parsed;
    context.addIssue({ code: 'custom', message: parsed });
    return z.NEVER;
  }),
  // A password must not show because a slash is missing, or because it has a comma that divides the list.
  show: (text, list) => {
    if (typeof endpointFrom(text) !== 'string') return withoutUser(text);
    return list.some((each) => each.includes('@')) ? REDACTED : text;
  },
  json: { type: 'string', pattern: '^https?://' },
};

/** The endpoint, or what is wrong with it. */
function endpointFrom(text: string): Endpoint | string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:') || url.hostname === '') {
    return 'must be a URL such as http://127.0.0.1:2379 or https://etcd-1.example:2379';
  }
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '') {
    return 'must be a scheme, a host and a port, with nothing behind them (--etcd-prefix says where leases are)';
  }
  const port = url.port === '' ? (url.protocol === 'http:' ? '80' : '443') : url.port;
  const place = { url: `${url.protocol}//${url.hostname}:${port}` };
  if (url.username === '' && url.password === '') return place;
  try {
    const username = decodeURIComponent(url.username);
    return { ...place, user: { username, password: new Secret(decodeURIComponent(url.password)) } };
  } catch {
    return 'has a user part with a stray "%": give --etcd-username and VTEPD_ETCD_PASSWORD instead';
  }
}

/** Where an API is served: it may be below a path. Nobody is named in it. */
export const apiUrl: Kind<string> = {
  ...matching(/^https?:\/\/[^\s/@?#]+(\/[^\s@?#]*)?$/, 'URL', 'must be a URL such as https://10.96.0.1:443'),
  show: (text) => withoutUser(text),
};

/** An address and a port to listen on, or `off` (undefined). */
export const listenAddress: Kind<HttpAddress | undefined> = {
  placeholder: 'ADDRESS:PORT|off',
  schema: z.string().transform((text, context) => {
    if (text === 'off') return undefined;
    const parsed = listenAddressFrom(text);
    if (parsed !== undefined) return parsed;
    const message = 'must be an address and a port, such as 127.0.0.1:9472 or [::1]:9472, or off';
    context.addIssue({ code: 'custom', message });
    return z.NEVER;
  }),
  json: { type: 'string' },
};

function listenAddressFrom(text: string): HttpAddress | undefined {
  const [, bracketed, plain, digits] = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = bracketed ?? (plain === 'localhost' ? '127.0.0.1' : plain);
  const port = Number(digits);
  if (host === undefined || port < 1 || port > 65535) return undefined;
  const address = tryAddress(host);
  if (address === undefined || address.includes(':') !== (bracketed !== undefined)) return undefined;
  return { host: address, port };
}

/** `127.0.0.1:9472`, `[::1]:9472`: as it stands in a URL. */
export const formatHttpAddress = ({ host, port }: HttpAddress): string =>
  `${host.includes(':') ? `[${host}]` : host}:${port}`;
