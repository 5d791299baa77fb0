/** The versions of the CNI specification that vtepd speaks; the same list as in vtepd-cni.c. */
export const CNI_VERSIONS = ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;
export type CniVersion = (typeof CNI_VERSIONS)[number];

export const NEWEST_CNI_VERSION: CniVersion = '1.1.0';

/** Undefined for one that vtepd does not speak. */
export const knownVersion = (text: string): CniVersion | undefined =>
  CNI_VERSIONS.find((version) => version === text);

/** Whether a version is the given one or a later one. */
export const isAtLeast = (version: CniVersion, floor: CniVersion): boolean =>
  CNI_VERSIONS.indexOf(version) >= CNI_VERSIONS.indexOf(floor);
