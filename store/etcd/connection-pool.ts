/** How one endpoint is connected to: TLS, message sizes, signs of life. grpc-js reconnects by itself. */
import { isIP } from 'node:net';
import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import { type ChannelCredentials, credentials } from '@grpc/grpc-js';
import { Host } from 'etcd3/lib/connection-pool.js';
import type { Endpoint } from './endpoint.ts';

export interface EtcdClientOptions {
  readonly endpoints: readonly Endpoint[];
  /** PEM. The system's certificate authorities where `ca` is absent. */
  readonly ca?: Buffer | undefined;
  readonly certificate?: Buffer | undefined;
  readonly key?: Buffer | undefined;
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  /** How long one attempt may take. */
  readonly callTimeoutMs: number;
  /** How often an open watch asks whether its server lives. etcd refuses less than 5 s. */
  readonly keepaliveMs: number;
}

/** A page of 1,000 ordinary leases has 250 KB; one value of etcd's largest fits with room. */
const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;

/**
 * The name that a server behind an address is told. A certificate is chosen by it where there are several, and
 * an address may not stand in its place (RFC 6066, section 3); Node 26 refuses to send one. No host has this
 * one (RFC 2606), and it is not what the certificate is compared with.
 */
const NO_SERVER_NAME = 'etcd.invalid';

/** The connections to one endpoint, opened when the first call is made. */
export function connectTo(endpoint: Endpoint, options: EtcdClientOptions): Host {
  const address = addressOf(endpoint);
  return new Host(endpoint.url, credentialsFor(endpoint, address, options), {
    'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
    'grpc.keepalive_time_ms': options.keepaliveMs,
    'grpc.keepalive_timeout_ms': options.keepaliveMs / 2,
    // A server that comes back is found within a second, not two minutes.
    'grpc.initial_reconnect_backoff_ms': 100,
    'grpc.max_reconnect_backoff_ms': 1000,
    'grpc.enable_retries': 0,
    // A pool made anew must not be given the old one's connection.
    'grpc.use_local_subchannel_pool': 1,
    'grpc.enable_http_proxy': 0,
    'grpc.service_config_disable_resolution': 1,
    ...(endpoint.secure && address !== undefined && { 'grpc.ssl_target_name_override': NO_SERVER_NAME }),
  });
}

function credentialsFor(
  { secure }: Endpoint,
  address: string | undefined,
  { ca, certificate, key }: EtcdClientOptions,
): ChannelCredentials {
  if (!secure) return credentials.createInsecure();
  const isPair = key !== undefined && certificate !== undefined;
  const verify = address === undefined ? {} : { checkServerIdentity: certificateIsFor(address) };
  return credentials.createSsl(ca ?? null, isPair ? key : null, isPair ? certificate : null, verify);
}

/** The certificate has to name the address that was asked for, whatever name the server was told. */
const certificateIsFor =
  (address: string) =>
  (_name: string, certificate: PeerCertificate): Error | undefined =>
    checkServerIdentity(address, certificate);

/** Undefined where the endpoint has a name. */
function addressOf({ url }: Endpoint): string | undefined {
  const host = new URL(url).hostname.replace(/^\[(.*)\]$/, '$1');
  return isIP(host) === 0 ? undefined : host;
}
