/** Addresses as the socket calls take them. */
import { type Address, addressBytes } from '../../store/address.ts';

export const AF_INET = 2;
export const AF_INET6 = 10;

/** struct sockaddr_in or sockaddr_in6, by the address's family. */
export function socketAddress(address: Address, port: number): Buffer {
  const bytes = addressBytes(address);
  const isIpv4 = bytes.length === 4;
  const out = Buffer.alloc(isIpv4 ? 16 : 28);
  out.writeUInt16LE(isIpv4 ? AF_INET : AF_INET6, 0);
  out.writeUInt16BE(port, 2);
  out.set(bytes, isIpv4 ? 4 : 8);
  return out;
}
