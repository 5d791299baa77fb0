/** What a CNI plugin may answer instead of a result (CNI specification, "Error"). */
import type { CniVersion } from './versions.ts';

/** The specification's codes, and from 100 on our own. */
export const CNI_CODES = {
  incompatibleVersion: 1,
  unsupportedField: 2,
  unknownContainer: 3,
  invalidEnvironment: 4,
  ioFailure: 5,
  decodeFailure: 6,
  invalidConfig: 7,
  tryAgainLater: 11,
  /** STATUS: no pod can be attached now. */
  notAvailable: 50,
  /** Something that should not happen; the log has more. */
  internal: 100,
  /** The attachment stands already. */
  alreadyAttached: 101,
  /** The pod has an interface of that name, and it is not ours. */
  interfaceExists: 102,
  /** An address that was asked for by name is in use. */
  addressInUse: 103,
  /** CHECK: what is there is not what ADD made. */
  checkFailed: 104,
  /** The kernel refused to build the pod's interface. */
  kernelRefused: 105,
} as const;

export class CniError extends Error {
  override readonly name = 'CniError';
  readonly code = 'VTEPD_CNI';
  readonly cniCode: number;
  readonly details: string | undefined;
  constructor(cniCode: number, message: string, options?: ErrorOptions & { readonly details?: string }) {
    super(message, options);
    this.cniCode = cniCode;
    this.details = options?.details;
  }
}

/** The specification's error object. */
export function formatError(version: CniVersion, error: CniError): string {
  return JSON.stringify({
    cniVersion: version,
    code: error.cniCode,
    msg: error.message,
    ...(error.details === undefined ? {} : { details: error.details }),
  });
}
