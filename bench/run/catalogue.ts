/** Everything that `vtepd bench` can say of a data path: the quantities of its reports, in their order. Pure. */
import type { Quantity } from '../report/schema.ts';

/** Where processor time goes, as /proc/stat has it; `softirq` holds hard interrupts too. */
export const CPU_PARTS = ['user', 'system', 'softirq'] as const;
export type CpuPart = (typeof CPU_PARTS)[number];

const CPU_PART_TITLES: Readonly<Record<CpuPart, string>> = {
  user: 'in programs',
  system: 'in the kernel for programs',
  softirq: 'in the kernel for packets (softirq, irq)',
};

type Plain = Omit<Quantity, 'compareBy'> & { readonly compareBy?: Quantity['compareBy'] };

const made = (quantity: Plain): Quantity => ({ compareBy: 'ratio', ...quantity });

/** The cost of something in processor time, whole and in its parts. */
function cost(id: string, title: string, unit: 's/Gbit' | 's/packet', axis?: Quantity['axis']): Quantity[] {
  const common = { group: 'cpu', unit, better: 'less', ...(axis !== undefined && { axis }) } as const;
  return [
    made({ id, title, ...common }),
    ...CPU_PARTS.map((part) =>
      made({
        id: `${id}.${part}`,
        title: `${title}, ${CPU_PART_TITLES[part]}`,
        ...common,
        // Of a kernel path, the user part is near nothing: a ratio would say nothing.
        compareBy: 'difference',
        partOf: { quantity: id, part },
      }),
    ),
  ];
}

const RATE = { title: 'rate that was sent', unit: 'bit/s' } as const;
const SIZE = { title: 'UDP payload', unit: 'bytes' } as const;
const MTU = { title: 'MTU of the underlay', unit: 'bytes' } as const;

const bits = { unit: 'bit/s', better: 'more' } as const;
const time = { unit: 's', better: 'less' } as const;

export const QUANTITIES: readonly Quantity[] = [
  made({ id: 'tcp-1.throughput', title: 'TCP, 1 stream', group: 'throughput', ...bits }),
  made({ id: 'tcp-8.throughput', title: 'TCP, 8 streams', group: 'throughput', ...bits }),
  made({ id: 'udp.throughput', title: 'UDP that arrived', group: 'udp', ...bits, axis: RATE }),
  made({
    id: 'udp.loss',
    title: 'UDP that was lost',
    group: 'udp',
    unit: '%',
    better: 'less',
    compareBy: 'difference',
    axis: RATE,
  }),
  made({ id: 'latency.p50', title: 'Round trip, half of them', group: 'latency', ...time }),
  made({ id: 'latency.p99', title: 'Round trip, 99 of 100', group: 'latency', ...time }),
  made({ id: 'latency.p999', title: 'Round trip, 999 of 1,000', group: 'latency', ...time }),
  made({ id: 'loaded.p50', title: 'Round trip under load, half of them', group: 'latency', ...time }),
  made({ id: 'loaded.p99', title: 'Round trip under load, 99 of 100', group: 'latency', ...time }),
  made({ id: 'loaded.p999', title: 'Round trip under load, 999 of 1,000', group: 'latency', ...time }),
  made({
    id: 'connections.rate',
    title: 'TCP connections, one after the other',
    group: 'connections',
    unit: 'connections/s',
    better: 'more',
  }),
  made({
    id: 'size.packets',
    title: 'UDP packets that arrived, by size',
    group: 'size',
    unit: 'packets/s',
    better: 'more',
    axis: SIZE,
  }),
  made({
    id: 'size.throughput',
    title: 'UDP payload that arrived, by size',
    group: 'size',
    ...bits,
    axis: SIZE,
  }),
  made({ id: 'mtu.throughput', title: 'TCP, 1 stream, by MTU', group: 'mtu', ...bits, axis: MTU }),
  ...cost('tcp-1.cpu', 'Processor time of TCP, 1 stream', 's/Gbit'),
  ...cost('tcp-8.cpu', 'Processor time of TCP, 8 streams', 's/Gbit'),
  ...cost('size.cpu', 'Processor time of a UDP packet, by size', 's/packet', SIZE),
  ...cost('mtu.cpu', 'Processor time of TCP, by MTU', 's/Gbit', MTU),
  made({
    id: 'memory.resident',
    title: 'Resident memory of the path’s programs on one node',
    group: 'memory',
    unit: 'MiB',
    better: 'less',
  }),
];
