/**
 * Mocha's `spec` reporter, which also writes build/test-counts: `passed failed skipped`, once the last test
 * has ended. `.ci/run` reads it; a run that crashes leaves no file, and so is never taken for a green one.
 * build/test-times has each file's seconds, hooks included, the longest first: what to look at to keep the suite short.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import Mocha from 'mocha';
import { packageRoot } from '../../overlay/ops/package.ts';

const {
  EVENT_RUN_BEGIN,
  EVENT_RUN_END,
  EVENT_SUITE_BEGIN,
  EVENT_SUITE_END,
  EVENT_TEST_FAIL,
  EVENT_TEST_PASS,
  EVENT_TEST_PENDING,
} = Mocha.Runner.constants;

const BUILD = join(packageRoot, 'build');

class CountingReporter extends Mocha.reporters.Spec {
  constructor(runner: Mocha.Runner, options?: Mocha.MochaOptions) {
    super(runner, options);
    const file = join(BUILD, 'test-counts');
    const counts = { passed: 0, failed: 0, skipped: 0 };
    runner.on(EVENT_RUN_BEGIN, () => rmSync(file, { force: true }));
    runner.on(EVENT_TEST_PASS, () => counts.passed++);
    // A failing hook is an event of this kind as well; the tests that it kept from running are no event.
    runner.on(EVENT_TEST_FAIL, () => counts.failed++);
    runner.on(EVENT_TEST_PENDING, () => counts.skipped++);
    runner.on(EVENT_RUN_END, () => {
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, `${counts.passed} ${counts.failed} ${counts.skipped}\n`);
      writeFileSync(join(BUILD, 'test-times'), secondsOf(times));
    });
    const times = new Map<string, number>();
    let startedMs = 0;
    runner.on(EVENT_SUITE_BEGIN, ({ parent }) => {
      if (parent?.root) startedMs = performance.now();
    });
    runner.on(EVENT_SUITE_END, ({ parent, file: path = '' }) => {
      if (parent?.root) times.set(path, (times.get(path) ?? 0) + performance.now() - startedMs);
    });
  }
}

const secondsOf = (timesMs: ReadonlyMap<string, number>): string =>
  [...timesMs]
    .sort(([, a], [, b]) => b - a)
    .map(([file, ms]) => `${(ms / 1000).toFixed(1).padStart(7)} ${relative(packageRoot, file)}\n`)
    .join('');

// Mocha loads a reporter with require(), which gives a module of this name as it stands.
export { CountingReporter as 'module.exports' };
