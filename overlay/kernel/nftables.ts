/**
 * libnftables in this process (`nft -f -`, `nft list`): 0.3 ms a transaction where starting nft takes 3.
 * Rules are written by it, for it knows their byte code; set elements go by nft-set.ts.
 *
 * The library is found when it is first needed, so that what needs no packet filter runs without it. A
 * context's socket belongs to the namespace it was opened in, but the library opens others as it goes (for
 * interfaces' names; anew, after an interrupted dump): so every call is made inside the namespace.
 *
 * libnftables ends the process when it cannot open a netlink socket: see openNetfilter.
 */
import koffi from 'koffi';
import { SystemCallError } from './libc.ts';
import { inNamespace } from './namespace.ts';
import { NETLINK_NETFILTER, NetlinkError, NetlinkSocket } from './netlink-socket.ts';
import { readGeneration } from './nft-message.ts';

const LIBRARY = 'libnftables.so.1';
const OUTPUT_JSON = 1 << 4;
const OUTPUT_TERSE = 1 << 11;
/** The library repeats the text with every complaint; what is told is the beginning. */
const COMPLAINT_CHARACTERS = 1000;

/** nftables cannot be used here: the library or the kernel's part is missing, or the right to use it. */
export class NftablesUnavailableError extends Error {
  override readonly name = 'NftablesUnavailableError';
  readonly code = 'VTEPD_NFTABLES_UNAVAILABLE';
}

/** nftables refused a text; the message has the library's own words. Nothing of the text was done. */
export class NftablesError extends Error {
  override readonly name = 'NftablesError';
  readonly code = 'VTEPD_NFTABLES';
}

type Context = unknown;

interface Library {
  readonly open: (flags: number) => Context;
  readonly free: (context: Context) => void;
  readonly bufferOutput: (context: Context) => number;
  readonly bufferErrors: (context: Context) => number;
  readonly setOutput: (context: Context, flags: number) => void;
  readonly run: (context: Context, text: string) => number;
  readonly output: (context: Context) => string;
  readonly errors: (context: Context) => string;
}

export interface NftablesOptions {
  /** A path such as /run/netns/NAME; absent: the caller's own namespace. */
  readonly namespace?: string | undefined;
  /** Another library's name or path. */
  readonly library?: string | undefined;
}

export interface ListOptions {
  readonly json?: boolean;
  /** Without the elements of sets, which are then not read either. */
  readonly terse?: boolean;
}

export class Nftables implements Disposable {
  readonly #library: Library;
  readonly #namespace: string | undefined;
  #context: Context;

  private constructor(library: Library, namespace: string | undefined) {
    this.#library = library;
    this.#namespace = namespace;
    const context: Context =
      namespace === undefined ? library.open(0) : inNamespace(namespace, () => library.open(0));
    if (context === null) throw new NftablesUnavailableError('libnftables gave no context');
    library.bufferOutput(context);
    library.bufferErrors(context);
    this.#context = context;
  }

  /** @throws NftablesUnavailableError */
  static open(options: NftablesOptions = {}): Nftables {
    return new Nftables(load(options.library ?? LIBRARY), options.namespace);
  }

  /** Carries a text out as one transaction (`nft -f -`). @throws NftablesError */
  run(text: string): void {
    this.#run(text, 0);
  }

  /**
   * `nft list ruleset`, `nft list table FAMILY NAME` or `nft list chain FAMILY NAME CHAIN`
   * @throws NftablesError, where there is no such table or chain as well
   */
  list(
    table?: { readonly family: string; readonly name: string; readonly chain?: string },
    options: ListOptions = {},
  ): string {
    const of = table && `${table.family} ${table.name}`;
    const what =
      of === undefined
        ? 'ruleset'
        : table?.chain === undefined
          ? `table ${of}`
          : `chain ${of} ${table.chain}`;
    const flags = (options.json === true ? OUTPUT_JSON : 0) | (options.terse === true ? OUTPUT_TERSE : 0);
    return this.#run(`list ${what}`, flags);
  }

  close(): void {
    if (this.#context === undefined) return;
    this.#library.free(this.#context);
    this.#context = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #run(text: string, outputFlags: number): string {
    const context = this.#context;
    // A freed context is memory of somebody else's.
    if (context === undefined) throw new NftablesError('nftables: the context is closed');
    return this.#inside(() => {
      this.#library.setOutput(context, outputFlags);
      const status = this.#library.run(context, text);
      // Reading empties the buffers.
      const output = this.#library.output(context);
      const errors = this.#library.errors(context);
      if (status !== 0) throw new NftablesError(`nftables: ${complaint(errors)}`);
      return output;
    });
  }

  #inside<T>(action: () => T): T {
    return this.#namespace === undefined ? action() : inNamespace(this.#namespace, action);
  }
}

function complaint(errors: string): string {
  const text = errors.trim();
  if (text === '') return 'refused without a reason';
  return text.length > COMPLAINT_CHARACTERS ? `${text.slice(0, COMPLAINT_CHARACTERS)}...` : text;
}

const loaded = new Map<string, Library>();

/** @throws NftablesUnavailableError */
function load(name: string): Library {
  const known = loaded.get(name);
  if (known !== undefined) return known;
  try {
    const library = koffi.load(name);
    const functions: Library = {
      open: library.func('void *nft_ctx_new(uint32_t)'),
      free: library.func('void nft_ctx_free(void *)'),
      bufferOutput: library.func('int nft_ctx_buffer_output(void *)'),
      bufferErrors: library.func('int nft_ctx_buffer_error(void *)'),
      setOutput: library.func('void nft_ctx_output_set_flags(void *, unsigned int)'),
      run: library.func('int nft_run_cmd_from_buffer(void *, const char *)'),
      output: library.func('const char *nft_ctx_get_output_buffer(void *)'),
      errors: library.func('const char *nft_ctx_get_error_buffer(void *)'),
    };
    loaded.set(name, functions);
    return functions;
  } catch (error) {
    throw new NftablesUnavailableError(
      `${name} cannot be loaded: install it (Debian: apt-get install libnftables1), or switch masquerade, ` +
        'peer filter and pod filter off',
      { cause: error },
    );
  }
}

/**
 * A netlink socket for nftables, tried out; the caller closes it. Before a Nftables is opened: that ends the
 * process where this throws. @throws NftablesUnavailableError
 */
export function openNetfilter(namespace: string | undefined): NetlinkSocket {
  const open = () => NetlinkSocket.open({ protocol: NETLINK_NETFILTER });
  let netlink: NetlinkSocket | undefined;
  try {
    netlink = namespace === undefined ? open() : inNamespace(namespace, open);
    readGeneration(netlink);
    return netlink;
  } catch (error) {
    netlink?.close();
    if (!(error instanceof NetlinkError || error instanceof SystemCallError)) throw error;
    throw new NftablesUnavailableError(
      error.code === 'EPERM'
        ? 'nftables: not permitted; CAP_NET_ADMIN is needed'
        : `nftables: the kernel refuses (${error.code}); it needs nf_tables: try "modprobe nf_tables", or switch ` +
            'masquerade, peer filter and pod filter off',
      { cause: error },
    );
  }
}
