/**
 * The first process of a PID namespace (a container's) inherits every process there whose parent ends, and has
 * to wait(2) for it, or it stays a zombie for ever: what somebody left running under `kubectl exec`, say. Node
 * waits for the children that it started itself, and for nothing else.
 *
 * Those two must not be mixed up, for a child's exit status can be had once. libuv waits for its own in the
 * very turn of the event loop in which SIGCHLD arrives; so a zombie that is seen in two looks, with turns of the
 * loop between them, is nobody's but ours.
 */
import { readdirSync, readFileSync } from 'node:fs';
import koffi from 'koffi';

const waitpid: (pid: number, status: Buffer, options: number) => number = koffi
  .load('libc.so.6')
  .func('int waitpid(int, uint8_t *, int)');
const WNOHANG = 1;

/** Between the two looks. */
const SECOND_LOOK_MS = 500;

export class OrphanReaper implements Disposable {
  readonly #onChild = (): void => this.#lookSoon();
  #timer: NodeJS.Timeout | undefined;
  /** Seen as zombies in the look before. */
  #seen: ReadonlySet<number> = new Set();

  /** For a process that is the first of its namespace, or a subreaper. */
  constructor() {
    process.on('SIGCHLD', this.#onChild);
    this.#lookSoon();
  }

  [Symbol.dispose](): void {
    process.off('SIGCHLD', this.#onChild);
    clearTimeout(this.#timer);
  }

  #lookSoon(): void {
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#look();
    }, SECOND_LOOK_MS);
    this.#timer.unref();
  }

  #look(): void {
    const zombies = zombieChildren();
    for (const pid of zombies) {
      if (this.#seen.has(pid) && waitpid(pid, Buffer.alloc(4), WNOHANG) === pid) zombies.delete(pid);
    }
    this.#seen = zombies;
    if (zombies.size > 0) this.#lookSoon();
  }
}

/** Our children that have ended and that nobody has waited for. */
function zombieChildren(): Set<number> {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return new Set(pids.map(Number).filter(isZombieOfOurs));
}

/** proc(5): `pid (name) state ppid ...`; the name may hold anything. */
function isZombieOfOurs(pid: number): boolean {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return false; // gone meanwhile
  }
  const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return state === 'Z' && Number(parent) === process.pid;
}
