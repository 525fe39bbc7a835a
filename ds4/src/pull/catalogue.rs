//! The published files, as a table. Sizes and SHA-256 are those that the publisher's repositories state
//! for them; they were collected from public records, at least two for each, and not measured here.

/// Something to ask for by name: one file, or several that belong together.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    pub about: &'static str,
    pub repo: &'static str,
    pub files: &'static [File],
    pub part: Part,
}

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A whole model, its first file: what `ds4` runs when no model is given.
    Model,
    /// Something that this version cannot use.
    Later,
}

/// One published file.
#[derive(Debug, PartialEq, Eq)]
pub struct File {
    pub name: &'static str,
    pub size: Size,
    pub sha256: &'static str,
}

/// How large a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Exactly(u64),
    /// Within a fiftieth: the records are rounded.
    About(u64),
}

impl Size {
    pub fn fits(self, bytes: u64) -> bool {
        match self {
            Size::Exactly(size) => bytes == size,
            Size::About(size) => bytes.abs_diff(size) <= size / 50,
        }
    }

    pub fn bytes(self) -> u64 {
        match self {
            Size::Exactly(size) | Size::About(size) => size,
        }
    }
}

impl Entry {
    /// The bytes of all its files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size.bytes()).sum()
    }

    /// The entry of this name or alias, in any case.
    pub fn find(name: &str) -> Option<&'static Entry> {
        CATALOGUE.iter().find(|entry| {
            let mut names = entry.aliases.iter().chain([&entry.name]);
            names.any(|known| known.eq_ignore_ascii_case(name))
        })
    }
}

const V4: &str = "antirez/deepseek-v4-gguf";
const V41: &str = "antirez/deepseek-v4.1-flash-gguf";

const VISION_ENCODER: File = File {
    name: "DeepSeek-V4-Flash-Vision-Encoder.gguf",
    size: Size::Exactly(932_857_760),
    sha256: "00cd4d81a435364967400a95c42703343e11da6b6f18c5143fe76e1d94d5035f",
};
const PRO_FIRST: File = File {
    name: "DeepSeek-V4-Pro-Q4K-Layers00-30.gguf",
    size: Size::About(457_521_000_000),
    sha256: "3c4526735ce204a99174059b216db155846b729bf5014c6b86d573323daa3cfa",
};
const PRO_SECOND: File = File {
    name: "DeepSeek-V4-Pro-Q4K-Layers-31-output.gguf",
    size: Size::About(441_952_000_000),
    sha256: "41d14e4ccf9a9b777899887ac4d6115b11e5a5125f051e9fa5e727656ad5179b",
};

/// Everything, in the order of the list.
pub const CATALOGUE: &[Entry] = &[
    Entry {
        name: "ds4f-q2",
        aliases: &["flash", "q2"],
        about: "Flash 0731, experts of 2 bits; for 96 GB of memory and more",
        repo: V4,
        files: &[File {
            name: "DeepSeek-V4-Flash-IQ2XXS-w2Q2K-AProjQ8-SExpQ8-OutQ8-chat-v2-imatrix-0731.gguf",
            size: Size::Exactly(86_720_111_488),
            sha256: "ca22ae2f838e14077c22bc1c1417b71b45b5e5a3687bd96c2ac6e17fdb6261c0",
        }],
        part: Part::Model,
    },
    Entry {
        name: "ds4f-q2-q4",
        aliases: &["q2-q4"],
        about: "Flash 0731, experts of 2 bits, of 4 in the last six layers; for 128 GB",
        repo: V4,
        files: &[File {
            name: "DeepSeek-V4-Flash-Layers37-42Q4KExperts-OtherExpertLayersIQ2XXSGateUp-Q2KDown-AProjQ8-SExpQ8-OutQ8-chat-v2-imatrix-fixed-0731.gguf",
            size: Size::Exactly(97_591_747_456),
            sha256: "659e22fbd01c9e13ea37a57c8d9c41e0a8819dffa3473d3c5286ee44b2d3398f",
        }],
        part: Part::Model,
    },
    Entry {
        name: "ds4f-q4",
        aliases: &["q4"],
        about: "Flash 0731, experts of 4 bits; for 256 GB",
        repo: V4,
        files: &[File {
            name: "DeepSeek-V4-Flash-Q4KExperts-F16HC-F16Compressor-F16Indexer-Q8Attn-Q8Shared-Q8Out-chat-v2-imatrix-0731.gguf",
            size: Size::Exactly(164_633_502_592),
            sha256: "6bb77b5ddcbc2d974c687cfb63d644ecfb295581b4a53fa4c1d810aea538254a",
        }],
        part: Part::Model,
    },
    Entry {
        name: "ds4f-mxfp4",
        aliases: &["mxfp4"],
        about: "Flash 0731, experts as DeepSeek released them",
        repo: V4,
        files: &[File {
            name: "DeepSeek-V4-Flash-MXFP4Experts-F16HC-F16Compressor-F16Indexer-Q8Attn-Q8Shared-Q8Out-chat-v2-mxfp4-0731.gguf",
            size: Size::Exactly(155_976_458_848),
            sha256: "0e3a161b670f686128ec5f92a601dfde616a37bf5e7e48999fa2d32471b57ec6",
        }],
        part: Part::Model,
    },
    Entry {
        name: "pro-q2-imatrix",
        aliases: &["pro", "pro-q2"],
        about: "PRO 0813, experts of 2 bits; for 512 GB",
        repo: V4,
        files: &[File {
            name: "DeepSeek-V4-Pro-IQ2XXS-w2Q2K-AProjQ8-SExpQ8-OutQ8-Instruct-imatrix-0813.gguf",
            size: Size::Exactly(464_627_334_560),
            sha256: "c4d997ab9894b6c78b759f7869fe1726b6314b6515f6ff82607df3797c5eb193",
        }],
        part: Part::Model,
    },
    Entry {
        name: "q2-imatrix",
        aliases: &[],
        about: "the Flash preview of April, experts of 2 bits",
        repo: V4,
        files: &[File {
            name: "DeepSeek-V4-Flash-IQ2XXS-w2Q2K-AProjQ8-SExpQ8-OutQ8-chat-v2-imatrix.gguf",
            size: Size::Exactly(86_720_111_488),
            sha256: "efc7ed607ff27076e3e501fc3fefefa33c0ed8cf1eff483a2b7fdc0c2e616668",
        }],
        part: Part::Model,
    },
    Entry {
        name: "q2-q4-imatrix",
        aliases: &[],
        about: "the Flash preview, experts of 2 bits, of 4 in the last six layers",
        repo: V4,
        files: &[File {
            name: "DeepSeek-V4-Flash-Layers37-42Q4KExperts-OtherExpertLayersIQ2XXSGateUp-Q2KDown-AProjQ8-SExpQ8-OutQ8-chat-v2-imatrix-fixed.gguf",
            size: Size::Exactly(97_591_747_456),
            sha256: "edabc92af63ad8b139f00087fbfc10a4072f37b7597f4fd9ad1dfa6f83002396",
        }],
        part: Part::Model,
    },
    Entry {
        name: "q4-imatrix",
        aliases: &[],
        about: "the Flash preview, experts of 4 bits",
        repo: V4,
        files: &[File {
            name: "DeepSeek-V4-Flash-Q4KExperts-F16HC-F16Compressor-F16Indexer-Q8Attn-Q8Shared-Q8Out-chat-v2-imatrix.gguf",
            size: Size::Exactly(164_633_502_592),
            sha256: "a2a3b31eca06344b93d32b2095511c4d36f92739a68a599b22047b4b2335d859",
        }],
        part: Part::Model,
    },
    Entry {
        name: "pro-q2-imatrix-preview",
        aliases: &[],
        about: "the PRO preview, experts of 2 bits",
        repo: V4,
        files: &[File {
            name: "DeepSeek-V4-Pro-IQ2XXS-w2Q2K-AProjQ8-SExpQ8-OutQ8-Instruct-imatrix.gguf",
            size: Size::Exactly(464_627_334_560),
            sha256: "a0314d9c0e16122cd60071079124a2d17185d317c55a8f95ecb3ed3506278a96",
        }],
        part: Part::Model,
    },
    Entry {
        name: "ds4f-vision-q2",
        aliases: &[],
        about: "Flash Vision-Exp, experts of 2 bits, with its encoder; text only so far",
        repo: V4,
        files: &[
            File {
                name: "DeepSeek-V4-Flash-Vision-Exp-IQ2XXS-w2Q2K-AProjQ8-SExpQ8-OutQ8.gguf",
                size: Size::Exactly(86_720_111_776),
                sha256: "8f2d42c0071ccf8a98f391cc2b835fd123f12330690b3059dbb7707920e5ad9e",
            },
            VISION_ENCODER,
        ],
        part: Part::Model,
    },
    Entry {
        name: "ds4f-vision-q2-q4",
        aliases: &[],
        about: "Flash Vision-Exp, experts of 2 and 4 bits, with its encoder; text only so far",
        repo: V4,
        files: &[
            File {
                name: "DeepSeek-V4-Flash-Vision-Exp-Layers37-42Q4KExperts-OtherExpertLayersIQ2XXSGateUp-Q2KDown-AProjQ8-SExpQ8-OutQ8.gguf",
                size: Size::Exactly(97_591_747_744),
                sha256: "cded4517bb9d033e778e8bc4ccf1e79ba96d1c2d2b9f1c071c1d4a9037c51b02",
            },
            VISION_ENCODER,
        ],
        part: Part::Model,
    },
    Entry {
        name: "ds4f-vision-mxfp4",
        aliases: &[],
        about: "Flash Vision-Exp, experts as released, with its encoder; text only so far",
        repo: V4,
        files: &[
            File {
                name: "DeepSeek-V4-Flash-Vision-Exp-MXFP4Experts-F16HC-F16Compressor-F16Indexer-Q8Attn-Q8Shared-Q8Out.gguf",
                size: Size::Exactly(155_976_459_136),
                sha256: "fc1efb96fa26e654b3530ce5f4b926b189a936d41d94dc1903c832f1e18eb3e7",
            },
            VISION_ENCODER,
        ],
        part: Part::Model,
    },
    Entry {
        name: "ds4f-vision-encoder",
        aliases: &[],
        about: "the image encoder of Flash Vision-Exp alone",
        repo: V4,
        files: &[VISION_ENCODER],
        part: Part::Later,
    },
    Entry {
        name: "ds4f-vision-dspark",
        aliases: &[],
        about: "the DSpark drafter of Flash Vision-Exp",
        repo: V4,
        files: &[File {
            name: "DeepSeek-V4-Flash-Vision-Exp-DSpark-support.gguf",
            size: Size::Exactly(5_989_114_528),
            sha256: "0807a67fd9ce5874bfc60d8d2461f50e11657e3dd94913d3473f85aa679bc877",
        }],
        part: Part::Later,
    },
    Entry {
        name: "ds4f-dspark",
        aliases: &["dspark"],
        about: "the DSpark drafter of Flash 0731",
        repo: V4,
        files: &[File {
            name: "DeepSeek-V4-Flash-DSpark-support-0731.gguf",
            size: Size::Exactly(5_989_114_272),
            sha256: "7e319924541db3f7a163ed7e11d7532a70d48228ab59d36cb81e1d4511885360",
        }],
        part: Part::Later,
    },
    Entry {
        name: "mtp",
        aliases: &[],
        about: "the drafting layer of the Flash preview",
        repo: V4,
        files: &[File {
            name: "DeepSeek-V4-Flash-MTP-Q4K-Q8_0-F32.gguf",
            size: Size::Exactly(3_807_602_400),
            sha256: "afd481ee689dce9037f70f39085fcdae5a5b096d521cdad43b19fa52bf8f4083",
        }],
        part: Part::Later,
    },
    Entry {
        name: "pro-q4-layers00-30",
        aliases: &[],
        about: "the PRO preview, experts of 4 bits, its first half for one of two machines",
        repo: V4,
        files: &[PRO_FIRST],
        part: Part::Later,
    },
    Entry {
        name: "pro-q4-layers31-output",
        aliases: &[],
        about: "the PRO preview, experts of 4 bits, its second half",
        repo: V4,
        files: &[PRO_SECOND],
        part: Part::Later,
    },
    Entry {
        name: "pro-q4-split",
        aliases: &[],
        about: "both halves",
        repo: V4,
        files: &[PRO_FIRST, PRO_SECOND],
        part: Part::Later,
    },
    Entry {
        name: "ds41f-q2",
        aliases: &[],
        about: "Flash V4.1, experts of 2 bits",
        repo: V41,
        files: &[File {
            name: "DeepSeek-V4.1-Flash-Q2.gguf",
            size: Size::Exactly(365_713_686_528),
            sha256: "1ce6a8f8806205c13330d7ca287bd198331dc5ca35ccc5d8a9a92a188a6f6f42",
        }],
        part: Part::Later,
    },
    Entry {
        name: "ds41f-vision",
        aliases: &[],
        about: "the image encoder of Flash V4.1",
        repo: V41,
        files: &[File {
            name: "DeepSeek-V4.1-Flash-Vision.gguf",
            size: Size::Exactly(970_555_552),
            sha256: "cc283f032b3e8b8d78aeb5fccaa14e97b859b0c53aae3cd6bffa690ddf0e9e15",
        }],
        part: Part::Later,
    },
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_name_means_one_thing() {
        let mut seen = HashSet::new();
        for entry in CATALOGUE {
            for name in entry.aliases.iter().chain([&entry.name]) {
                assert!(seen.insert(*name), "{name}");
                assert_eq!(Entry::find(&name.to_uppercase()).unwrap().name, entry.name);
            }
        }
        assert_eq!(Entry::find("flash").unwrap().name, "ds4f-q2");
        assert_eq!(Entry::find("glm"), None);
    }

    #[test]
    fn every_file_can_be_checked_and_named_in_a_url() {
        for file in CATALOGUE.iter().flat_map(|entry| entry.files) {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            assert!(file.name.bytes().all(plain) && file.name.ends_with(".gguf"), "{}", file.name);
            let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            assert!(
                file.sha256.len() == 64 && file.sha256.bytes().all(hexadecimal),
                "{}",
                file.name
            );
            assert!(file.size.bytes() > 500_000_000, "{}", file.name);
        }
    }

    #[test]
    fn one_file_has_one_hash_and_two_files_have_two() {
        let files: HashSet<_> =
            CATALOGUE.iter().flat_map(|entry| entry.files).map(|f| f.name).collect();
        let pairs: HashSet<_> =
            CATALOGUE.iter().flat_map(|entry| entry.files).map(|f| (f.name, f.sha256)).collect();
        let hashes: HashSet<_> = pairs.iter().map(|(_, hash)| hash).collect();
        assert_eq!((pairs.len(), hashes.len()), (files.len(), files.len()));
    }

    #[test]
    fn sizes_fit_as_well_as_they_are_known() {
        assert!(Size::Exactly(100).fits(100) && !Size::Exactly(100).fits(101));
        assert!(Size::About(100).fits(98) && !Size::About(100).fits(97));
    }
}
