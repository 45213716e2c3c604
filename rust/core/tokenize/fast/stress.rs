//! Texts on which the fast encoder is compared with `tokenizers` whenever a tokenizer is loaded.

/// Texts that hold something at which encoders have gone wrong.
const TEXTS: [&str; 20] = [
    "The quick brown fox jumps over the lazy dog, 12345678 times; 3.14 % of 1,000,000.",
    "it's IT'S we're WE'RE I've I'll I'm he'd 'tis o'clock don't'll ''s 'ſ rock'n'roll",
    "Ìwé mẹ́ta wà lórí tábìlì; ọmọ náà ń kà á. Ẹ̀kọ́ Ǹjẹ́ ọ́nụ́ Ụlọ akwụkwọ Ƙasa ɓera ʼYaʼya",
    concat!(
        "e\u{301}o\u{323}\u{301} o\u{301}\u{323} I\u{300}we\u{301} \u{301}\u{323} a\u{301} ",
        "\u{212b}\u{1100}\u{1161}\u{11a8} \u{f73}\u{9c7}\u{9be}",
    ),
    "  two  spaces   \t tab \r\n\r\n lines\n \n  end   ",
    "\n\n\n",
    " ",
    "a",
    "\u{0}\u{1}\u{7f}\u{80}\u{a0}\u{ad}\u{feff}\u{200d}\u{2028}\u{3000}x\u{85}y",
    "中文字符,日本語テキスト。한국어 العربية हिन्दी नेपाली ไทย አማርኛ ⵜⵉⴼⵉⵏⴰⵖ 𞤀𞤣𞤤𞤢𞤥",
    "👩\u{200d}👩\u{200d}👧 🇳🇬 😀😀 ✓ © ™ … — “quotes” ‘x’ «y»",
    "camelCaseWord HTTPServer XMLHttpRequest ABCdef iPhone McDonald ǅungla ʰA ªB",
    "fn main() { println!(\"{}\", x[0] / 2); } // path/to//file.txt\n\n\t\treturn;\n/\n",
    "https://example.org/a?b=c&d=%20#frag user@mail.com +234-803-555-0199 ½ ² ٣٤٥ Ⅳ",
    concat!(
        "supercalifragilisticexpialidociousantidisestablishmentarianism",
        "pneumonoultramicroscopicsilicovolcanoconiosis",
    ),
    concat!(
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ),
    "                                                                                x",
    concat!(
        "=====================================-----------------------------------",
        "*****************!!!!!!!!!!!!!!!!",
    ),
    "<s></s> [CLS] <|endoftext|> <|im_start|>user\nhi<|im_end|> <yor>: ẹ n lẹ́ <pad><unk>",
    "abcdefghijklmno pqrstuvwxyzabcd efghijklmnopqrst uvwxyz ABCDEFGHIJKLMNO PQRSTUVWXYZABCDEF",
];

/// Parts of random texts.
const LETTERS: [&str; 32] = [
    "a", "e", "n", " ", " ", "the", "ọ", "ẹ", "\u{301}", "\u{323}", "A", "Z", "'", "s", "1", "23",
    "\n", "\t", ".", ",", "/", "ʰ", "ǅ", "中", "é", "\u{a0}", "😀", "\r\n", "-", "ing", "ŋ", "II",
];

/// Returns the stress texts, and texts with each of `spellings` alone and inside others.
pub(crate) fn texts(spellings: &[String]) -> Vec<String> {
    let mut texts: Vec<String> = TEXTS.iter().map(|&text| text.to_owned()).collect();
    let mut state = 1_u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        LETTERS[(state >> 59) as usize]
    };
    // The generator above has a fixed seed: each load checks the same texts.
    for _ in 0..40 {
        texts.push((0..40).map(|_| next()).collect());
    }
    // A hostile file may list thousands; loading must stay fast.
    for spelling in spellings.iter().take(64) {
        texts.push(format!(
            "a {spelling} b{spelling}c{spelling}{spelling}\n {spelling} e\u{301}{spelling}\u{301}"
        ));
    }
    texts
}
