"use strict";
// Numbers as a reader writes them and as one types them; for every page that is made here.

function plain(value) {
  return value.toLocaleString("en-US", { maximumFractionDigits: 10 });
}

// What `human` of words.py writes.
function human(value, unit, digits = 4) {
  if (!Number.isFinite(value)) return "–";
  const compute = /^(FLOP|MAC)/.test(unit), sign = (value < 0 ? "-" : "") + (unit.startsWith("$") ? "$" : "");
  let size = Math.abs(value);
  if (size >= 1e4 && size < 1e5 && digits >= 4) digits = 5;
  size = Number(size.toPrecision(digits));
  if (size === 0 || (size >= 1e-3 && size < (compute ? 1e5 : 1e6))) return sign + plain(size);
  if (size >= 1e6 && size < 1e15 && !compute) {
    const [scale, word] = [[1e12, "trillion"], [1e9, "billion"], [1e6, "million"]].find((pair) => size >= pair[0]);
    return `${sign}${plain(Number((size / scale).toPrecision(digits)))} ${word}`;
  }
  const [mantissa, exponent] = size.toExponential(digits - 1).split("e");
  const raised = String(Number(exponent)).replace(/[-0-9]/g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);
  return `${sign}${plain(Number(mantissa))} × 10${raised}`;
}

// A number in a box, its thousands parted or not; NaN where there is none.
function numberIn(text) {
  return text.trim() === "" ? NaN : Number(text.replace(/[,_\s]/g, ""));
}
