/**
 * What a benchmark found, as data: what `--json` writes, the HTML page is drawn from and `compare` reads.
 * One schema for `vtepd bench` (what encapsulation costs) and for the project's own benchmarks.
 *
 *   contestants   what was compared: data paths, or ways to do something
 *   quantities    what was measured of each: a title, a unit, which direction is better
 *   results       one for each contestant, quantity, direction and place on the quantity's axis:
 *                 a value a round, and what the rounds say together
 *   differences   each result against the baseline's of the same quantity, round by round
 *
 * The version is in `schema`. A reader refuses a version that it does not know; within a version fields are
 * only added. Numbers are in the unit that their quantity names, without prefixes: bit/s, not Gbit/s.
 */
import { z } from 'zod';

export const SCHEMA = 'vtepd-bench/1';

/** A bound for text in reports: a hostile file is no reason to fill a page. */
const text = z.string().max(10_000);
const finite = z.number();

/** How a value is to be read. Formatted for people by format.ts. */
export const UNITS = [
  'bit/s',
  'packets/s',
  'connections/s',
  'messages/s',
  's',
  /** Processor seconds of the whole machine for 10^9 bits of payload that arrived. */
  's/Gbit',
  /** Processor seconds of the whole machine for one packet that arrived. */
  's/packet',
  /** Of a whole: 0 to 100. */
  '%',
  'bytes',
  'MiB',
  'count',
  /** How many times as much. */
  'times',
] as const;

/** What belongs in one plot or one table. `own` is what the project measures of itself. */
export const GROUPS = [
  'throughput',
  'udp',
  'latency',
  'connections',
  'size',
  'mtu',
  'cpu',
  'memory',
  'own',
] as const;

const contestant = z.strictObject({
  /** Unique; `underlay`, `vxlan`. */
  id: text,
  /** For people: `pod to pod, kernel vxlan`. */
  title: text,
  /** What it is made of, a sentence or two. */
  about: text,
  /** Present: it was not measured, and this is why. */
  skipped: text.optional(),
  /** The MTU of the interfaces that the traffic left by; absent where there is no traffic. */
  mtuBytes: finite.optional(),
  /** Of the devices on its way, by `DEVICE in NAMESPACE'S ROLE`: offloads that are on (ethtool's names). */
  offloads: z.record(text, z.array(text)).optional(),
});

const quantity = z.strictObject({
  /** Unique; `tcp-1.throughput`. */
  id: text,
  /** For people: `TCP, 1 stream`. */
  title: text,
  group: z.enum(GROUPS),
  unit: z.enum(UNITS),
  better: z.enum(['more', 'less']),
  /**
   * How two values are compared: by their ratio, or by their difference in the unit where values may be 0.
   */
  compareBy: z.enum(['ratio', 'difference']),
  /** Values are measured at several places of it, which results name in `at`. */
  axis: z.strictObject({ title: text, unit: z.enum(UNITS) }).optional(),
  /** It is a part (`user`, `system`, `softirq`, ...) of another quantity; all parts add up to that. */
  partOf: z.strictObject({ quantity: text, part: text }).optional(),
});

/** Lowest and highest value that the median has with this probability; order statistics, so no assumption. */
const interval = z.strictObject({
  low: finite,
  high: finite,
  /** The probability: 0.9375 for the whole spread of five rounds. */
  level: finite,
});

const result = z.strictObject({
  contestant: text,
  quantity: text,
  /** Which way the data went; absent where that means nothing. `reverse`: from the second end to the first. */
  direction: z.enum(['forward', 'reverse']).optional(),
  /** The place on the quantity's axis. */
  at: finite.optional(),
  /** By round, in order; null: this round gave none (see `problems`). */
  rounds: z.array(finite.nullable()),
  median: finite,
  min: finite,
  max: finite,
  interval,
  /**
   * Rounds (from 0) whose value lies further than 1.5 interquartile ranges outside of the quartiles (Tukey's
   * fences). They are shown, and stay in everything that is computed.
   */
  outliers: z.array(z.number().int()),
  /** Of all samples of all rounds, where there are samples: a share of them (0 to 1) is at most the value. */
  distribution: z
    .strictObject({
      samples: finite,
      quantiles: z.array(z.strictObject({ share: finite, value: finite })),
    })
    .optional(),
});

const difference = z.strictObject({
  contestant: text,
  /** What it is compared with. */
  baseline: text,
  quantity: text,
  direction: z.enum(['forward', 'reverse']).optional(),
  at: finite.optional(),
  /**
   * The contestant's value divided by the baseline's of the same round, or less it (the quantity's
   * `compareBy`): the median of the rounds.
   */
  median: finite,
  interval,
  /** `unseen`: the interval holds 1 (or 0), so no difference can be seen here. */
  verdict: z.enum(['better', 'worse', 'unseen']),
  /** A sentence for people. */
  statement: text,
});

const layer = z.strictObject({
  /** `Ethernet`, `IPv4`, `UDP`, `VXLAN`, `payload`. */
  name: text,
  bytes: finite,
  /** `outer`: the underlay's frame, there with or without a tunnel. `added`: what the path adds. */
  role: z.enum(['outer', 'added', 'inner']),
});

const overhead = z.strictObject({
  contestant: text,
  /** Outermost first. */
  layers: z.array(layer),
  /** What the path adds to a pod's IP packet, by arithmetic; bytes. Of `added` layers, the sum. */
  computedBytes: finite,
  /** The largest IP packet that a pod can send. */
  innerMtuBytes: finite,
  /** Of each full-sized frame on the wire (with preamble, FCS and gap), the share that is TCP payload: 0 to 1. */
  efficiency: finite,
  /** A packet of a known size as it passed the underlay; absent when none could be captured. */
  captured: z
    .strictObject({
      /** What was sent: the pod's IP packet. */
      innerBytes: finite,
      /** What was seen: the frame, without FCS. */
      frameBytes: finite,
      /** frameBytes less innerBytes and less the outer Ethernet header. */
      overheadBytes: finite,
      /** It is what was computed. */
      agrees: z.boolean(),
      /** The frame's first bytes. */
      hex: text,
    })
    .optional(),
});

const machine = z.strictObject({
  cpu: text,
  cores: finite,
  memoryMiB: finite,
  system: text,
  kernel: text,
  node: text,
  /** Of the first core's frequency; null: the machine shows none (a virtual machine). */
  governor: text.nullable(),
  /** Over one minute, when it began. */
  load: finite,
  /** Of the machine's time during the whole run, what a hypervisor gave to others; percent. */
  stealPercent: finite,
  /** Processors' share that others' programs used in the pauses between measurements; percent, median. */
  backgroundPercent: finite.nullable(),
  tcpCongestionControl: text.nullable(),
  /** Versions of the programs that measured or were measured: `iperf3`: `3.12`. */
  programs: z.record(text, text),
});

const aim = z.strictObject({ what: text, atMost: finite, measured: finite, met: z.boolean() });

const command = z.strictObject({
  /** What it was for: the contestant's id, then the quantity's or what was set up. */
  what: text,
  /** As it was run; the namespace it ran in is in it (`ip netns exec ...`). */
  argv: z.array(text),
  times: z.number().int(),
});

export const reportSchema = z.strictObject({
  schema: z.literal(SCHEMA),
  /** `encapsulation` for `vtepd bench`, else the name of one of the project's own: `convergence`. */
  bench: text,
  title: text,
  vtepd: text,
  /** ISO 8601. */
  startedAt: text,
  durationS: finite,
  /** False: it was interrupted; everything here was measured before. */
  complete: z.boolean(),
  quick: z.boolean(),
  /** How many were planned; results may have fewer when it was interrupted. */
  plannedRounds: finite,
  /** What the order of the rounds was made from. */
  seed: finite,
  /** How it was measured, in sentences: warm-up, order, duration of each. */
  method: z.array(text),
  machine,
  /** The contestant that the differences are from; null: there are none. */
  baseline: text.nullable(),
  contestants: z.array(contestant),
  quantities: z.array(quantity),
  results: z.array(result),
  differences: z.array(difference),
  overheads: z.array(overhead),
  aims: z.array(aim),
  /** What a reader should know before believing it: noise, a program that failed in a round. */
  problems: z.array(text),
  commands: z.array(command),
});

/** The same as JSON Schema (draft 2020-12), for readers in other languages. */
export const reportJsonSchema = (): object => z.toJSONSchema(reportSchema);

export type BenchReport = Readonly<z.infer<typeof reportSchema>>;
export type Contestant = Readonly<z.infer<typeof contestant>>;
export type Quantity = Readonly<z.infer<typeof quantity>>;
export type Result = Readonly<z.infer<typeof result>>;
export type Interval = Readonly<z.infer<typeof interval>>;
export type Difference = Readonly<z.infer<typeof difference>>;
export type Overhead = Readonly<z.infer<typeof overhead>>;
export type Layer = Readonly<z.infer<typeof layer>>;
export type ReportedMachine = Readonly<z.infer<typeof machine>>;
export type ReportedAim = Readonly<z.infer<typeof aim>>;
export type ReportedCommand = Readonly<z.infer<typeof command>>;
export type Unit = (typeof UNITS)[number];
export type Group = (typeof GROUPS)[number];
export type Direction = 'forward' | 'reverse';

/** A file is not a report of ours. The message names the file and the first thing that is wrong. */
export class ReportError extends Error {
  override readonly name = 'ReportError';
  readonly code = 'VTEPD_BENCH_REPORT';
}

/** Reads what `--json` wrote. @param name of the file, for messages @throws ReportError */
export function parseReport(json: string, name: string): BenchReport {
  let parsed: unknown;
  try {
    parsed = JSON.parse(json);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new ReportError(`${name} is not JSON: ${why}`, { cause: error });
  }
  const schema =
    typeof parsed === 'object' && parsed !== null && 'schema' in parsed ? parsed.schema : undefined;
  if (schema !== SCHEMA) {
    const found = typeof schema === 'string' ? `"${schema.slice(0, 64)}"` : 'none';
    throw new ReportError(
      `${name} is not a report of ${SCHEMA} (vtepd bench --json): its schema is ${found}`,
    );
  }
  const checked = reportSchema.safeParse(parsed);
  if (checked.success) return checked.data;
  const [issue] = checked.error.issues;
  throw new ReportError(`${name}: ${issue?.path.join('.')}: ${issue?.message}`);
}
