/** How one endpoint is connected to: TLS, message sizes, signs of life. grpc-js reconnects by itself. */
import { ConnectionPool } from 'etcd3/lib/connection-pool.js';
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

/** The connections to one endpoint, opened when the first call is made. */
export function connectionPool(endpoint: Endpoint, options: EtcdClientOptions): ConnectionPool {
  const { ca, certificate, key } = options;
  const credentials = endpoint.secure && (ca !== undefined || certificate !== undefined);
  return new ConnectionPool({
    hosts: endpoint.url,
    ...(credentials && {
      credentials: {
        // Undefined means the system's authorities to gRPC, which etcd3's type does not say.
        rootCertificate: ca as Buffer,
        ...(key !== undefined && certificate !== undefined && { privateKey: key, certChain: certificate }),
      },
    }),
    grpcOptions: {
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
    },
  });
}
