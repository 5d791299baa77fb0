import { expect } from 'chai';
import { Backoff, delay } from '../../store/backoff.ts';

describe('store/backoff', () => {
  it('doubles up to its cap, each delay within the upper half of its step, and starts over after a success', () => {
    for (const [random, part] of [
      [() => 0, 0.5],
      [() => 1, 1],
    ] as const) {
      const backoff = new Backoff({ minMs: 100, maxMs: 1000, random });
      const steps = [100, 200, 400, 800, 1000, 1000].map((stepMs) => stepMs * part);
      expect(steps.map(() => backoff.next())).to.deep.equal(steps);
      backoff.reset();
      expect(backoff.next()).to.equal(100 * part);
    }
  });

  it('waits, and stops waiting with the reason of the abort', async () => {
    const controller = new AbortController();
    await delay(1, controller.signal);
    const waiting = delay(60_000, controller.signal);
    controller.abort(new Error('enough'));
    for (const attempt of [waiting, delay(1, controller.signal)]) {
      let message = '';
      await attempt.catch((error: Error) => {
        message = error.message;
      });
      expect(message).to.equal('enough');
    }
  });
});
