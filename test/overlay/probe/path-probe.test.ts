/** The state machine of one path against simulated ones: of any width, with loss, that change and come back. */
import { expect } from 'chai';
import fc from 'fast-check';
import { type Outcome, PathProbe } from '../../../overlay/probe/path-probe.ts';

const MIN_BYTES = 576;
const FULL_BYTES = 1500;

interface SimulatedPath {
  /** The largest packet that passes; 0: none does. */
  readonly mtuBytes: number;
  /** Whether this packet, one of those that fit, is lost all the same. */
  readonly loses?: (() => boolean) | undefined;
}

interface Run {
  /** Attempts, the last regular check not counted. */
  readonly attempts: number;
  readonly packets: number;
}

/** Sends what the probe asks for until it rests, and then `checks - 1` times more. */
function checks(probe: PathProbe, path: SimulatedPath, count: number, hintBytes?: number): Run {
  let attempts = 0;
  let packets = 0;
  for (let rests = 0; rests < count; ) {
    const attempt = probe.attempt(hintBytes);
    const passes = (bytes: number | undefined) => {
      if (bytes === undefined) return false;
      packets++;
      return bytes <= path.mtuBytes && !(path.loses?.() ?? false);
    };
    const outcome: Outcome = {
      passed: passes(attempt.sizeBytes),
      referencePassed: passes(attempt.referenceBytes),
    };
    if (probe.conclude(attempt, outcome) === 'later') rests++;
    if (++attempts > 100_000) throw new Error('the probe never rests');
  }
  return { attempts, packets };
}

const wide: SimulatedPath = { mtuBytes: FULL_BYTES };
const silent: SimulatedPath = { mtuBytes: 0 };

function wellKnown(): PathProbe {
  const probe = new PathProbe(MIN_BYTES, FULL_BYTES);
  checks(probe, wide, 2);
  return probe;
}

describe('probe: one path', () => {
  it('a path that is well costs one packet a check', () => {
    const probe = wellKnown();
    expect(probe.findings).to.deep.equal({ reachable: true, mtuBytes: FULL_BYTES, filtered: false });
    expect(checks(probe, wide, 10)).to.deep.equal({ attempts: 10, packets: 10 });
  });

  it('finds the largest size that passes, of any path, in few packets', () => {
    fc.assert(
      fc.property(fc.integer({ min: MIN_BYTES, max: FULL_BYTES - 1 }), fc.boolean(), (mtuBytes, known) => {
        const probe = known ? wellKnown() : new PathProbe(MIN_BYTES, FULL_BYTES);
        const { packets } = checks(probe, { mtuBytes }, 1);
        expect(probe.findings).to.deep.equal({ reachable: true, mtuBytes, filtered: false });
        expect(packets).to.be.lessThan(90);
      }),
    );
  });

  it('needs few packets where another path has been found to carry as much', () => {
    const probe = wellKnown();
    const { packets } = checks(probe, { mtuBytes: 1400 }, 1, 1400);
    expect(probe.findings.mtuBytes).to.equal(1400);
    expect(packets).to.be.lessThan(22);
    const other = wellKnown();
    checks(other, { mtuBytes: 1401 }, 1, 1400);
    expect(other.findings.mtuBytes).to.equal(1401);
  });

  it('takes plain loss for no narrow path, and finds a narrow one in spite of it', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: MIN_BYTES, max: FULL_BYTES }),
        fc.infiniteStream(fc.integer({ min: 0, max: 99 })),
        (mtuBytes, dice) => {
          const loses = () => (dice.next().value ?? 0) < 5;
          const probe = new PathProbe(MIN_BYTES, FULL_BYTES);
          checks(probe, { mtuBytes, loses }, 20);
          // The last checks without loss: what loss misled it to is corrected.
          checks(probe, { mtuBytes }, 8);
          expect(probe.findings).to.deep.equal({ reachable: true, mtuBytes, filtered: false });
        },
      ),
    );
  });

  it('follows a path through any changes', () => {
    const widths = fc.array(fc.integer({ min: MIN_BYTES, max: FULL_BYTES }), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(widths, (changes) => {
        const probe = new PathProbe(MIN_BYTES, FULL_BYTES);
        for (const mtuBytes of changes) {
          checks(probe, { mtuBytes }, 3);
          expect(probe.findings.mtuBytes, changes.join(' ')).to.equal(mtuBytes);
        }
      }),
    );
  });

  it('one that never answered is unknown, one that no longer does is not reachable; neither changes the MTU', () => {
    const fresh = new PathProbe(MIN_BYTES, FULL_BYTES);
    checks(fresh, silent, 5);
    expect(fresh.findings).to.deep.equal({ reachable: undefined, mtuBytes: undefined, filtered: false });
    const reduced = wellKnown();
    checks(reduced, { mtuBytes: 1400 }, 1);
    checks(reduced, silent, 5);
    expect(reduced.findings).to.deep.equal({ reachable: false, mtuBytes: 1400, filtered: false });
    checks(reduced, wide, 3);
    expect(reduced.findings).to.deep.equal({ reachable: true, mtuBytes: FULL_BYTES, filtered: false });
  });

  it('an unreachable path costs two packets a check', () => {
    const probe = wellKnown();
    checks(probe, silent, 2);
    expect(checks(probe, silent, 10)).to.deep.equal({ attempts: 10, packets: 20 });
  });

  it('one that answers small packets only is filtered: nothing is concluded from it, until it carries more', () => {
    const probe = wellKnown();
    checks(probe, { mtuBytes: 200 }, 3);
    expect(probe.findings).to.deep.equal({ reachable: true, mtuBytes: undefined, filtered: true });
    checks(probe, { mtuBytes: 1300 }, 3);
    expect(probe.findings).to.deep.equal({ reachable: true, mtuBytes: 1300, filtered: false });
  });

  it('a path that comes and goes has to show more before it is believed', () => {
    const probe = wellKnown();
    const raising = () => {
      checks(probe, { mtuBytes: 1400 }, 2);
      return checks(probe, wide, 2).attempts;
    };
    const first = raising();
    const later = [raising(), raising(), raising()];
    expect(later[0]).to.be.greaterThan(first);
    expect(later[2]).to.be.greaterThan(2 * first);
    checks(probe, wide, 50);
    expect(raising()).to.equal(first);
  });

  it('another full size: what was found smaller stays, the rest is found anew', () => {
    const reduced = wellKnown();
    checks(reduced, { mtuBytes: 1400 }, 1);
    reduced.setFull(9000);
    expect(reduced.findings.mtuBytes).to.equal(1400);
    reduced.setFull(1300);
    expect(reduced.findings.mtuBytes).to.equal(undefined);
    const well = wellKnown();
    well.setFull(9000);
    expect(well.findings.mtuBytes).to.equal(undefined);
    checks(well, { mtuBytes: 9000 }, 1);
    expect(well.findings.mtuBytes).to.equal(9000);
  });
});
