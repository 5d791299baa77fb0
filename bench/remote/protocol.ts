/**
 * What `vtepd bench --to` and `vtepd bench serve` say to each other: a line of JSON each, request and answer
 * in turns, over one TCP connection. The client names servers by what they are and a port of a given range;
 * it sends no command, no path and no address.
 */
import { z } from 'zod';

export const PROTOCOL = 'vtepd-bench-serve/1';

/** Longer lines end the connection. */
export const MAX_LINE_BYTES = 4096;
/** A session that asks nothing for so long is ended: its servers must not stay. */
export const IDLE_MS = 15 * 60_000;

/** `pod`: the one that was attached for this session. */
export const PLACES = ['host', 'pod'] as const;
export type Place = (typeof PLACES)[number];

const server = {
  name: z.enum(['iperf3', 'sockperf', 'connections']),
  place: z.enum(PLACES),
  port: z.number().int().min(1024).max(65_535),
};

export const requestSchema = z.discriminatedUnion('verb', [
  z.strictObject({ verb: z.literal('hello'), protocol: z.literal(PROTOCOL), pod: z.boolean() }),
  z.strictObject({ verb: z.literal('start'), ...server }),
  z.strictObject({ verb: z.literal('stop'), id: z.number().int() }),
  z.strictObject({ verb: z.literal('cpu') }),
]);
export type Request = z.infer<typeof requestSchema>;

const number = z.number();

export const answerSchema = z.strictObject({
  error: z.string().optional(),
  /** To hello: what answers, and the pod's address if there is one, else why there is none. */
  hello: z
    .strictObject({
      version: z.string(),
      cores: number,
      cpu: z.string(),
      kernel: z.string(),
      /** Of its kernel's start (random/boot_id): whether both ends are of one machine. */
      bootId: z.string(),
      podAddress: z.string().optional(),
      noPod: z.string().optional(),
    })
    .optional(),
  /** To start: what to stop it by. */
  id: number.optional(),
  cpu: z
    .strictObject({ user: number, system: number, softirq: number, idle: number, steal: number })
    .optional(),
});
export type Answer = z.infer<typeof answerSchema>;
