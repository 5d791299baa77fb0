/**
 * Chromium without a window, driven over its own pipe (the DevTools protocol), for tests that look at a page.
 * It reaches no network: nothing resolves there, and what a page asks for is written down.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

const ANSWER_DEADLINE_MS = 30_000;

type Values = Readonly<Record<string, unknown>>;

interface Message {
  readonly id?: number;
  readonly sessionId?: string;
  readonly method?: string;
  readonly params?: Values;
  readonly result?: Values;
  readonly error?: { readonly message: string };
}

interface Waiting {
  readonly resolve: (result: Values) => void;
  readonly reject: (error: Error) => void;
}

export class Browser {
  /** What the page asked for beyond itself. */
  readonly requests: string[] = [];
  /** What it complained about: exceptions, errors and warnings of the console, refusals of its policy. */
  readonly complaints: string[] = [];
  readonly #child: ChildProcess;
  readonly #input: Writable;
  readonly #folder: string;
  readonly #waiting = new Map<number, Waiting>();
  readonly #events = new Map<string, () => void>();
  #next = 1;
  #session: string | undefined;
  #rest = '';

  private constructor(child: ChildProcess, folder: string) {
    this.#child = child;
    this.#folder = folder;
    this.#input = child.stdio[3] as Writable;
    const output = child.stdio[4] as Readable;
    output.setEncoding('utf8');
    output.on('data', (text: string) => this.#read(text));
    child.once('exit', () => {
      for (const { reject } of this.#waiting.values()) reject(new Error('chromium ended'));
      this.#waiting.clear();
    });
  }

  /** The caller closes it. */
  static async open(): Promise<Browser> {
    const folder = await mkdtemp(join(tmpdir(), 'vtepd-browser-'));
    const options = [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-dev-shm-usage',
      '--remote-debugging-pipe',
      '--no-first-run',
      '--disable-background-networking',
      '--host-resolver-rules=MAP * ~NOTFOUND',
      `--user-data-dir=${folder}`,
    ];
    const child = spawn('chromium', options, {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
      // It leaves folders behind, for its one process a user.
      env: { ...process.env, TMPDIR: folder },
    });
    const browser = new Browser(child, folder);
    try {
      const { targetId } = await browser.#call('Target.createTarget', { url: 'about:blank' });
      const { sessionId } = await browser.#call('Target.attachToTarget', { targetId, flatten: true });
      browser.#session = String(sessionId);
      for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await browser.#call(`${domain}.enable`);
      return browser;
    } catch (error) {
      await browser.close();
      throw error;
    }
  }

  async show(url: string): Promise<void> {
    this.requests.length = 0;
    this.complaints.length = 0;
    const loaded = new Promise<void>((resolve) => this.#events.set('Page.loadEventFired', resolve));
    await this.#call('Page.navigate', { url });
    await loaded;
  }

  async resize(width: number, height: number): Promise<void> {
    const mobile = width < 600;
    await this.#call('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile });
  }

  async prefer(scheme: 'light' | 'dark', media: 'screen' | 'print' = 'screen'): Promise<void> {
    const features = [{ name: 'prefers-color-scheme', value: scheme }];
    await this.#call('Emulation.setEmulatedMedia', { media, features });
  }

  /** The value of an expression in the page; it must fit JSON. */
  async evaluate<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.#call('Runtime.evaluate', {
      expression,
      returnByValue: true,
    });
    if (exceptionDetails !== undefined) throw new Error(JSON.stringify(exceptionDetails));
    return (result as { readonly value: T }).value;
  }

  /** A PNG of the whole page. */
  async screenshot(): Promise<Buffer> {
    const { data } = await this.#call('Page.captureScreenshot', { captureBeyondViewport: true });
    return Buffer.from(String(data), 'base64');
  }

  async pdf(): Promise<Buffer> {
    const { data } = await this.#call('Page.printToPDF', { printBackground: false });
    return Buffer.from(String(data), 'base64');
  }

  async close(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const ended = new Promise((resolve) => this.#child.once('exit', resolve));
      this.#child.kill('SIGTERM');
      await ended;
    }
    // Its helpers write there until the very end.
    await rm(this.#folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
  }

  #call(method: string, params: Values = {}): Promise<Values> {
    const id = this.#next++;
    const session = this.#session === undefined ? {} : { sessionId: this.#session };
    return new Promise<Values>((resolve, reject) => {
      const late = setTimeout(
        () => reject(new Error(`chromium: no answer to ${method}`)),
        ANSWER_DEADLINE_MS,
      );
      this.#waiting.set(id, {
        resolve: (result) => {
          clearTimeout(late);
          resolve(result);
        },
        reject: (error) => {
          clearTimeout(late);
          reject(error);
        },
      });
      this.#input.write(`${JSON.stringify({ id, method, params, ...session })}\0`);
    });
  }

  #read(text: string): void {
    const messages = `${this.#rest}${text}`.split('\0');
    this.#rest = messages.pop() ?? '';
    for (const message of messages) this.#take(JSON.parse(message) as Message);
  }

  #take({ id, method, params = {}, result, error }: Message): void {
    if (id !== undefined) {
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error !== undefined) waiting?.reject(new Error(error.message));
      else waiting?.resolve(result ?? {});
      return;
    }
    switch (method) {
      case 'Network.requestWillBeSent':
        this.requests.push((params.request as { readonly url: string }).url);
        break;
      case 'Runtime.exceptionThrown':
      case 'Runtime.consoleAPICalled':
      case 'Log.entryAdded':
        this.complaints.push(JSON.stringify(params));
        break;
    }
    this.#events.get(method ?? '')?.();
  }
}
