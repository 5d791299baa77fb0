/** `vtepd status`: what the daemon on this node says of itself. */
import { get, type IncomingMessage } from 'node:http';
import { loadOptions } from '../config/load-options.ts';
import { formatHttpAddress } from '../config/network-kinds.ts';
import type { OptionName } from '../config/options.ts';
import type { HttpAddress } from '../config/settings.ts';
import { messageWithCauses } from '../ops/log.ts';
import { renderStatus } from '../ops/render-status.ts';
import type { StatusReport } from '../ops/status.ts';
import { type Flag, isOn, JSON_FLAG, parseArguments, refusePositionals } from './arguments.ts';
import { type Command, EXIT_FAILED, EXIT_OK } from './command.ts';
import { helpText } from './help.ts';
import { optionFlags, optionSections } from './option-flags.ts';

const OPTIONS = ['config', 'http'] as const satisfies readonly OptionName[];
const ALL_FLAG: Flag = { name: 'all', placeholder: '', help: 'List every peer and pod, however many.' };
const FLAGS = [JSON_FLAG, ALL_FLAG];

/** Rows of a table before `--all` is asked for. */
const MAX_ROWS = 20;
const ANSWER_TIMEOUT_MS = 10_000;
/** How much of an unexpected answer is shown. */
const MAX_QUOTED = 200;

/** The daemon did not answer with a status. */
class StatusUnavailableError extends Error {
  override readonly name = 'StatusUnavailableError';
  readonly code = 'VTEPD_STATUS_UNAVAILABLE';
}

export const command: Command = {
  name: 'status',
  summary: 'Say how the daemon on this node is: lease, device, peers, pods, store',
  usage: helpText({
    forms: ['vtepd status [--json] [--all] [options]'],
    about: [
      'Asks the running daemon over HTTP. Read it from the top: ready or why not, then each part, with what is missing of each peer. Exit code 0 when the daemon answered and is ready, 1 otherwise.',
    ],
    flags: FLAGS,
    sections: optionSections(OPTIONS),
  }),
  async run(argv, io) {
    const given = parseArguments(argv, [...FLAGS, ...optionFlags(OPTIONS)]);
    refusePositionals(given);
    const { values } = await loadOptions(OPTIONS, { flags: given.flags, environment: io.environment });
    if (values.http === undefined) {
      throw new StatusUnavailableError('--http is off in this configuration: the daemon serves no status');
    }
    const body = await fetchText(reachable(values.http), '/api/v1/status', io.signal);
    const report = reportFrom(body, values.http);
    const maxRows = isOn(given, 'all') ? Number.POSITIVE_INFINITY : MAX_ROWS;
    io.out(isOn(given, 'json') ? body : renderStatus(report, { maxRows, now: new Date() }));
    return report.ready ? EXIT_OK : EXIT_FAILED;
  },
};

/** Where a daemon that listens on every address answers on this machine. */
function reachable({ host, port }: HttpAddress): HttpAddress {
  if (host === '0.0.0.0') return { host: '127.0.0.1', port };
  return host === '::' ? { host: '::1', port } : { host, port };
}

function fetchText(address: HttpAddress, path: string, signal: AbortSignal): Promise<string> {
  const url = `http://${formatHttpAddress(address)}${path}`;
  return new Promise((resolve, reject) => {
    const fail = (error: unknown) => {
      if (signal.aborted) return reject(signal.reason);
      const remedy = 'is `vtepd run` running here, in this network namespace, with this --http?';
      const message = `no vtepd answers at ${url} (${messageWithCauses(error)}): ${remedy}`;
      reject(new StatusUnavailableError(message, { cause: error }));
    };
    const request = get(url, { signal, agent: false }, (response) => {
      collect(response).then((text) => {
        if (response.statusCode === 200) return resolve(text);
        const answer = `HTTP ${response.statusCode}: ${text.slice(0, MAX_QUOTED).trim()}`;
        return reject(new StatusUnavailableError(`${url} answers ${answer}`));
      }, fail);
    });
    request.setTimeout(ANSWER_TIMEOUT_MS, () =>
      request.destroy(new Error(`no answer in ${ANSWER_TIMEOUT_MS / 1000} s`)),
    );
    request.on('error', fail);
  });
}

async function collect(response: IncomingMessage): Promise<string> {
  response.setEncoding('utf8');
  let text = '';
  for await (const part of response) text += part;
  return text;
}

/** Our own daemon is trusted with the details; that it is one is not taken for granted. */
function reportFrom(body: string, address: HttpAddress): StatusReport {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body);
  } catch {
    parsed = undefined;
  }
  if (isReport(parsed)) return parsed;
  throw new StatusUnavailableError(
    `what answers at ${formatHttpAddress(address)} is not vtepd: check --http`,
  );
}

const isReport = (value: unknown): value is StatusReport =>
  typeof value === 'object' &&
  value !== null &&
  'node' in value &&
  'version' in value &&
  'reconcile' in value;
