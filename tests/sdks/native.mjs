// For node and for the page: served to it as it is.

/** Values that only JavaScript can hold; tests/it/sdks.rs knows what they must become. */
export function nativeValues() {
  return {
    date: new Date('2026-01-02T03:04:05.678Z'),
    dates: [new Date(0)],
    nothing: undefined,
    nan: NaN,
    negative_zero: -0,
    cut_emoji: '👍'.slice(0, 1),
    deep: nested(64),
  }
}

function nested(levels) {
  return levels === 0 ? 'bottom' : { d: nested(levels - 1) }
}
