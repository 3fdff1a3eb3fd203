/** As much of an ELF shared object (System V gABI, 64-bit little-endian) as tests ask about. @module */

/** What a shared object exports, what it needs, and of which versions. */
export interface Elf {
  /** Defined global and weak dynamic symbols. */
  readonly exported: readonly string[];
  /** DT_NEEDED. */
  readonly needed: readonly string[];
  /** Symbol versions asked of the needed libraries, "GLIBC_2.17". */
  readonly versions: readonly string[];
}

const SHT_STRTAB = 3, SHT_DYNAMIC = 6, SHT_DYNSYM = 11, SHT_GNU_VERNEED = 0x6ffffffe, DT_NEEDED = 1;

/** @throws {Error} when the bytes are no such file */
export function readElf(bytes: Uint8Array): Elf {
  const v = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (v.getUint32(0) !== 0x7f454c46 || bytes[4] !== 2 || bytes[5] !== 1) throw new Error("no 64-bit little-endian ELF");
  const big = (at: number): number => Number(v.getBigUint64(at, true));
  const u32 = (at: number): number => v.getUint32(at, true);
  const u16 = (at: number): number => v.getUint16(at, true);
  const sections = Array.from({ length: u16(60) }, (_, i) => {
    const at = big(40) + i * u16(58);
    return { type: u32(at + 4), offset: big(at + 24), size: big(at + 32), link: u32(at + 40), info: u32(at + 44) };
  });
  const find = (type: number) => sections.find((s) => s.type === type);
  const text = (table: number, at: number): string => {
    const start = sections[table].offset + at;
    if (sections[table].type !== SHT_STRTAB) throw new Error("no table of strings");
    return new TextDecoder().decode(bytes.subarray(start, bytes.indexOf(0, start)));
  };

  const exported: string[] = [], needed: string[] = [], versions: string[] = [];
  const symbols = find(SHT_DYNSYM), dynamic = find(SHT_DYNAMIC), verneed = find(SHT_GNU_VERNEED);
  if (!symbols || !dynamic) throw new Error("no dynamic symbols");
  for (let at = symbols.offset; at < symbols.offset + symbols.size; at += 24) {
    const binding = bytes[at + 4] >> 4, section = u16(at + 6);
    if (binding !== 0 && section !== 0) exported.push(text(symbols.link, u32(at)));
  }
  for (let at = dynamic.offset; at < dynamic.offset + dynamic.size; at += 16) {
    if (big(at) === DT_NEEDED) needed.push(text(dynamic.link, big(at + 8)));
  }
  let file = verneed?.offset ?? 0;
  for (let i = 0; verneed && i < verneed.info; i++) {
    let one = file + u32(file + 8);
    for (let k = 0; k < u16(file + 2); k++) {
      versions.push(text(verneed.link, u32(one + 8)));
      one += u32(one + 12);
    }
    file += u32(file + 12);
  }
  return { exported, needed, versions };
}
