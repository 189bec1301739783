/** Close reasons as bytes: at most 123 of them (RFC 6455 §5.5), always whole UTF-8 code points. */

/** A control frame holds 125 bytes, of which two are the code. */
export const MAX_REASON_BYTES = 123;

/**
 * The longest beginning of `reason` that is valid UTF-8 of at most `maxBytes` bytes. A lone surrogate
 * has no UTF-8 form and becomes U+FFFD first, as every encoder would write it.
 */
export function cutReason(reason: string, maxBytes: number = MAX_REASON_BYTES): string {
  let bytes = 0;
  let kept = "";
  for (const character of reason) {
    const codePoint = character.codePointAt(0) ?? 0;
    const isLoneSurrogate = codePoint >= 0xd800 && codePoint <= 0xdfff;
    bytes += isLoneSurrogate ? 3 : utf8Length(codePoint);
    // The loop ends here for a reason of any length: what a peer sends cannot make this slow.
    if (bytes > maxBytes) return kept;
    kept += isLoneSurrogate ? "\uFFFD" : character;
  }
  return kept;
}

function utf8Length(codePoint: number): number {
  if (codePoint < 0x80) return 1;
  if (codePoint < 0x800) return 2;
  return codePoint < 0x10000 ? 3 : 4;
}
