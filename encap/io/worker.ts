/**
 * A worker's thread: forwards batches of one queue, both ways in turns, while there are any, then waits. Its event loop
 * never turns: what it is told comes in shared memory and, when that says so, from the port, which it reads itself.
 *
 * It waits in poll(2), for packets or for the main thread's word. Before that it looks again for a short while, giving
 * the processor to whoever wants it: an answer often comes within microseconds, and being woken takes longer.
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { POLLIN, poll, read, yieldProcessor } from './calls.ts';
import { COUNTER_NUMBERS, Counters } from './counters.ts';
import { MappedMemory } from './memory-map.ts';
import { Receiver } from './receiver.ts';
import { Sender } from './sender.ts';
import { FAIL, MESSAGES, STOP, type WorkerChange, type WorkerReport, type WorkerStart } from './shared.ts';

/** Looks for packets before blocking. More are time taken from whoever would answer, on two cores. */
const LOOKS = 20;

/**
 * Nobody waits for this time: the main thread wakes workers when it wants something. But a process that ends without
 * saying so joins its threads first, and gets them only once they are back in JavaScript.
 */
const POLL_MS = 500;

const start = workerData as WorkerStart;
const steering = new Int32Array(start.steering);
const counters = (block: number): Counters =>
  new Counters(new Float64Array(start.counters, block * COUNTER_NUMBERS * 8, COUNTER_NUMBERS));
const sender = new Sender(start, counters(2 * start.index));
const receiver = new Receiver(start, counters(2 * start.index + 1));

const map = new MappedMemory(64);
/** Three struct pollfd, and the eventfd's number. */
const [QUEUE, SOCKET, WAKE, NUMBER] = [0, 8, 16, 24];

function report(message: WorkerReport): void {
  parentPort?.postMessage(message);
}

function watch(entry: number, fd: number): void {
  const { view } = map.memory;
  view.setInt32(entry, fd, true);
  view.setInt32(entry + 4, POLLIN, true);
}

let seenMessages = -1;

/** Takes up what the main thread sent. */
function listen(): void {
  seenMessages = Atomics.load(steering, MESSAGES);
  if (parentPort === null) return;
  for (;;) {
    const received = receiveMessageOnPort(parentPort) as { message: WorkerChange } | undefined;
    if (received === undefined) return;
    const { destinations, sources, sockets, number } = received.message;
    sender.use(destinations, sockets);
    receiver.use(sources, sockets);
    if (sockets !== undefined) watch(SOCKET, sockets.receiver);
    report({ kind: 'took', number });
  }
}

function wait(): void {
  const ready = poll(map.address, 3, POLL_MS);
  // An eventfd is emptied by reading its number.
  if (ready > 0 && map.memory.view.getInt16(WAKE + 6, true) !== 0) read(start.wake, map.address + NUMBER, 8);
}

function run(): void {
  watch(QUEUE, start.queue);
  watch(SOCKET, start.sockets.receiver);
  watch(WAKE, start.wake);
  let looks = 0;
  while (Atomics.load(steering, STOP) === 0) {
    if (Atomics.load(steering, MESSAGES) !== seenMessages) listen();
    if (Atomics.load(steering, FAIL + start.index) === 1) {
      Atomics.store(steering, FAIL + start.index, 0);
      throw new Error('told to fail');
    }
    const received = receiver.step();
    const sent = sender.step();
    if (received < 0 || sent < 0) {
      report({ kind: 'gone' });
      return;
    }
    if (received + sent > 0) looks = 0;
    else if (looks < LOOKS) {
      looks++;
      yieldProcessor();
    } else {
      wait();
      looks = 0;
    }
  }
}

run();
