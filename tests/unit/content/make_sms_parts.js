// Writes sms_parts.json with Twilio's own calculator: npm install sms-segments-calculator@1.3.0 && node make_sms_parts.js > sms_parts.json
// Texts are run-length coded: [[text, times], …].
const { SegmentedMessage } = require('sms-segments-calculator');
let seed = 20261121; const rnd = n => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
const pick = a => a[rnd(a.length)];
const gsm = ['a', 'Hello ', 'é', '@', '\n', '\r\n', 'Ω', '0', 'ß', ' ', '$'];
const ext = ['€', '[', ']', '{', '}', '\\', '^', '~', '|', '\f'];
const ucs = ['ç', '“', '’', '–', 'ż', '你', 'я', 'ع', '😀', '👍🏽', '👨‍👩‍👧‍👦', '🇩🇪', 'e\u0301', 'नि', '한', 'ก็', '`', '\t'];
const cases = [];
const add = runs => { const text = runs.map(([t, n]) => t.repeat(n)).join(''); const m = new SegmentedMessage(text);
  cases.push({ runs, encoding: m.encodingName, parts: m.segmentsCount ?? m.segments.length }); };
add([]);
for (const n of [1, 69, 70, 71, 152, 153, 154, 159, 160, 161, 305, 306, 307, 458, 459, 460, 1530, 1531]) add([['a', n]]);
for (const n of [1, 66, 67, 68, 69, 70, 71, 133, 134, 135, 200, 201, 202, 670, 671]) add([['я', n]]);
for (const n of [33, 34, 35, 36, 66, 67, 68, 100, 101]) add([['😀', n]]);
for (const n of [79, 80, 81, 76, 77, 152, 153, 154]) add([['€', n]]);
for (const e of ext) for (const n of [151, 152, 153, 158, 159]) add([['a', n], [e, 1], ['b', 3]]);
for (const u of ucs) for (const n of [63, 65, 66, 69]) add([['x', n], [u, 1], ['y', 2]]);
while (cases.length < 300) { const alphabet = pick([gsm, gsm.concat(ext), gsm.concat(ucs), ucs]); const runs = [];
  for (let i = 1 + rnd(8); i > 0; i--) runs.push([pick(alphabet), 1 + rnd(60)]); add(runs); }
// Texts of all scripts, and of clusters that versions of Unicode disagree about.
const joined = ['क्षि', 'ക്ഷ', 'ஸ்ரீ', 'မြန်', 'ខ្ញុំ', '👩🏽‍🚀', '🏳️‍🌈', '🏴‍☠️', '❤️‍🔥', '🧑🏻‍🤝‍🧑🏿', '🫱🏻‍🫲🏿', '🐻‍❄️', '🙂‍↔️', '1️⃣', '🇦🇹\u0301', '각', 'ᄀ', 'ᅡ', 'ᆨ', '\u200d', '\u0600'];
const starts = [0x590, 0x600, 0x700, ...Array.from({ length: 32 }, (_, i) => 0x900 + 64 * i), 0x1780, 0x1800, 0x1a20, 0x1b00, 0xa840, 0xa980, 0xaa00, 0xabc0, 0x11000, 0x11100, 0x1f300, 0x1f3f0, 0x1f900, 0xe0100];
for (const j of joined) for (const n of [22, 23, 33, 34, 35, 67]) add([[j, n]]);
while (cases.length < 900) { const start = pick(starts); let text = '';
  for (let i = 20 + rnd(160); i > 0; i--) text += rnd(8) ? String.fromCodePoint(start + rnd(64)) : pick(joined); add([[text, 1]]); }
console.log('[\n' + cases.map(c => JSON.stringify(c)).join(',\n') + '\n]');
