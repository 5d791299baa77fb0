/** Rounds: everything has its turn in each, what fails is told and given up, an abort keeps what there is. */
import { expect } from 'chai';
import { EngineError, type NearEnd } from '../../bench/engine/end.ts';
import type { DataPath } from '../../bench/paths/data-path.ts';
import type { Quantity, Result } from '../../bench/report/schema.ts';
import type { Measurement, Workload } from '../../bench/run/measurement.ts';
import { orderOf, type RunContext, runWorkload, stepsOf } from '../../bench/run/runner.ts';
import { SeriesStore } from '../../bench/run/series-store.ts';
import { workload } from '../../bench/run/workloads.ts';
import { seeded } from '../../bench/statistics/random.ts';

const QUANTITY: Quantity = {
  id: 'speed',
  title: 'Speed',
  group: 'throughput',
  unit: 'bit/s',
  better: 'more',
  compareBy: 'ratio',
};

/** A path of which nothing but the name is used. */
const pathOf = (id: string): DataPath => ({
  contestant: { id, title: id, about: '' },
  from: unused,
  to: unused,
  programs: () => [],
  encapsulation: 'none',
});

const unused: NearEnd = {
  id: 'none',
  local: true,
  address: '192.0.2.1' as NearEnd['address'],
  run: () => Promise.reject(new Error('unused')),
  serve: () => Promise.reject(new Error('unused')),
  cpu: () => Promise.reject(new Error('unused')),
};

interface Script {
  readonly id: string;
  readonly at?: number;
  readonly direction?: 'forward' | 'reverse';
  readonly measure?: (call: number) => Promise<number>;
}

describe('bench: rounds', () => {
  let said: string[];
  let problems: string[];
  let store: SeriesStore;
  let controller: AbortController;
  let steps: number;
  let isTimeUp: () => boolean;

  beforeEach(() => {
    [said, problems, store, controller, steps] = [[], [], new SeriesStore(), new AbortController(), 0];
    isTimeUp = () => false;
  });

  const context = (rounds: number): RunContext => ({
    rounds,
    random: seeded(1),
    store,
    begun: () => {},
    stepped: () => {
      steps++;
    },
    isTimeUp: () => isTimeUp(),
    problem: (text) => problems.push(text),
    signal: controller.signal,
  });

  const workloadOf = (scripts: readonly Script[], more: Partial<Workload> = {}): Workload => ({
    id: 'w',
    title: 'work',
    quantities: ['speed'],
    overheadSeconds: 0,
    measurements: scripts.map(({ id, at, direction, measure = async () => 1 }): Measurement => {
      let call = 0;
      return {
        path: pathOf(id),
        direction,
        at,
        warmUp: async () => void said.push(`warm ${id}`),
        async measure() {
          said.push(`${id}${at ?? ''}`);
          return { values: { speed: await measure(call++) } };
        },
      };
    }),
    ...more,
  });

  const results = (...ids: readonly string[]): Result[] => store.results([QUANTITY], ids);

  it('warms each up once, then measures each once a round, and counts its steps', async () => {
    const workload = workloadOf([{ id: 'a' }, { id: 'b' }, { id: 'c' }]);
    await runWorkload(workload, 0.1, context(4));
    expect(said.slice(0, 3)).to.deep.equal(['warm a', 'warm b', 'warm c']);
    for (let round = 0; round < 4; round++) {
      expect(said.slice(3 + 3 * round, 6 + 3 * round).sort()).to.deep.equal(['a', 'b', 'c']);
    }
    expect(steps).to.equal(stepsOf(workload, 4)).and.to.equal(15);
    expect(results('a', 'b', 'c').map(({ rounds }) => rounds)).to.deep.equal(Array(3).fill([1, 1, 1, 1]));
  });

  it('paths stand beside each other at one place and direction, in orders that differ', () => {
    const scripts = [1, 2].flatMap((at) => ['a', 'b', 'c'].map((id) => ({ id, at })));
    const { measurements } = workloadOf(scripts);
    const random = seeded(2);
    const orders = new Set<string>();
    for (let round = 0; round < 20; round++) {
      const order = orderOf(measurements, random);
      const places = order.map(({ at }) => at);
      expect(places.slice(0, 3), 'one place first').to.deep.equal(Array(3).fill(places[0]));
      expect(new Set(order).size).to.equal(6);
      orders.add(order.map(({ path, at }) => `${path.contestant.id}${at}`).join(' '));
    }
    expect(orders.size).to.be.greaterThan(10);
  });

  it('a fault leaves its round empty and is told; after two in a row the measurement is left alone', async () => {
    let tried = 0;
    const failing = async (): Promise<number> => {
      tried++;
      throw new EngineError('it broke');
    };
    const once = async (call: number): Promise<number> => {
      if (call === 1) throw new EngineError('a hiccup');
      return 5;
    };
    await runWorkload(
      workloadOf([
        { id: 'bad', measure: failing },
        { id: 'good', measure: once },
      ]),
      0.1,
      context(4),
    );
    expect(tried).to.equal(2);
    expect(problems.join('\n'))
      .to.match(/work: it broke\n/)
      .and.to.match(/it broke; given up/);
    expect(results('bad', 'good').map(({ contestant, rounds }) => [contestant, rounds])).to.deep.equal([
      ['good', [5, null, 5, 5]],
    ]);
  });

  it('a fault of ours is none of the measurement: it ends the run', async () => {
    const broken = workloadOf([{ id: 'a', measure: () => Promise.reject(new TypeError('a bug')) }]);
    let failure: unknown;
    await runWorkload(broken, 0.1, context(2)).catch((error: unknown) => {
      failure = error;
    });
    expect(failure).to.be.instanceOf(TypeError);
  });

  it('servers that do not start are a problem of this workload, and what was opened is closed', async () => {
    const open = (): Promise<never> => Promise.reject(new EngineError('no server'));
    await runWorkload(workloadOf([{ id: 'a' }], { open }), 0.1, context(2));
    expect(problems).to.deep.equal(['work: not measured: no server']);
    let closed = 0;
    const opened = async () => async () => void closed++;
    await runWorkload(workloadOf([{ id: 'a' }], { open: opened }), 0.1, context(1));
    expect(closed).to.equal(1);
  });

  it('an abort ends it with its reason; the rounds before it are kept', async () => {
    const reason = new Error('Ctrl-C');
    const measure = async (call: number): Promise<number> => {
      if (call === 2) controller.abort(reason);
      controller.signal.throwIfAborted();
      return call;
    };
    let failure: unknown;
    for (const more of [{}, { staggerMs: 1 }]) {
      controller = new AbortController();
      store = new SeriesStore();
      await runWorkload(workloadOf([{ id: 'a', measure }], more), 0.1, context(5)).catch((error: unknown) => {
        failure = error;
      });
      expect(failure).to.equal(reason);
      expect(results('a')[0]?.rounds).to.deep.equal([0, 1]);
    }
  });

  it('when the time is up there is no further round, but always a first', async () => {
    isTimeUp = () => true;
    await runWorkload(workloadOf([{ id: 'a' }]), 0.1, context(5));
    expect(results('a')[0]?.rounds).to.deep.equal([1]);
    expect(problems).to.deep.equal(['work: 1 of 5 rounds, for the time was up: this machine is busy']);
  });

  it('ends of one namespace with an address each have a server each, and ends that are shared one', async () => {
    const served: string[] = [];
    const endOf = (id: string, address: string): NearEnd => ({
      ...unused,
      id,
      address: address as NearEnd['address'],
      serve: async () => {
        served.push(address);
        return { stop: async () => void served.splice(served.indexOf(address), 1) };
      },
    });
    const [from, shared] = [endOf('one', '192.0.2.1'), endOf('two', '192.0.2.2')];
    const paths = [
      { ...pathOf('a'), from, to: shared },
      { ...pathOf('b'), from, to: shared },
      { ...pathOf('c'), from: endOf('one', '10.98.2.1'), to: endOf('two', '10.98.2.2') },
    ];
    const close = await workload('latency', paths, true).open?.(controller.signal);
    expect(served).to.deep.equal(['192.0.2.2', '10.98.2.2', '192.0.2.1', '10.98.2.1']);
    await close?.();
    expect(served).to.deep.equal([]);
  });

  it('staggered ones begin without waiting for the one before, and all are waited for', async () => {
    let [running, most] = [0, 0];
    let open = (): void => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    const measure = async (): Promise<number> => {
      most = Math.max(most, ++running);
      if (most === 3) open();
      await gate;
      running--;
      return 1;
    };
    const scripts = ['a', 'b', 'c'].map((id) => ({ id, measure }));
    const workload = workloadOf(scripts, { staggerMs: 1 });
    await runWorkload(workload, 0.1, context(1));
    expect([most, running]).to.deep.equal([3, 0]);
    expect(said).not.to.include('warm a');
    expect(steps).to.equal(stepsOf(workload, 1));
  });
});
