//! What the processor can do, and how much of the machine this process may use.

use std::fs;
use std::num::NonZeroUsize;

/// Something that kernels of engines make use of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feature {
    /// Vectors of 256 bits (x86).
    Avx2,
    /// Fused multiply-add (x86).
    Fma,
    /// Vectors of 512 bits: the parts F, BW, DQ and VL (x86).
    Avx512,
    /// Products of int8 in vectors (x86).
    Avx512Vnni,
    /// Products of bfloat16 in vectors (x86).
    Avx512Bf16,
    /// Products of int8 in small vectors, without AVX-512 (x86).
    AvxVnni,
    /// Products of int8 tiles (x86).
    AmxInt8,
    /// Products of bfloat16 tiles (x86).
    AmxBf16,
    /// Vectors (ARM).
    Neon,
    /// Products of int8 in vectors (ARM).
    DotProd,
    /// Products of int8 matrices (ARM).
    I8mm,
    /// Products of bfloat16 matrices (ARM).
    Bf16,
    /// Vectors of any length (ARM).
    Sve,
}

impl Feature {
    /// As it is usually written.
    pub fn name(self) -> &'static str {
        match self {
            Feature::Avx2 => "AVX2",
            Feature::Fma => "FMA",
            Feature::Avx512 => "AVX-512",
            Feature::Avx512Vnni => "AVX-512 VNNI",
            Feature::Avx512Bf16 => "AVX-512 BF16",
            Feature::AvxVnni => "AVX-VNNI",
            Feature::AmxInt8 => "AMX int8",
            Feature::AmxBf16 => "AMX bf16",
            Feature::Neon => "NEON",
            Feature::DotProd => "dot product",
            Feature::I8mm => "I8MM",
            Feature::Bf16 => "BF16",
            Feature::Sve => "SVE",
        }
    }
}

/// The processor.
#[derive(Debug, Clone)]
pub struct Cpu {
    /// What it calls itself.
    pub model: String,
    /// What it can do, of what engines use.
    pub features: Vec<Feature>,
}

impl Cpu {
    /// This machine's.
    pub fn here() -> Cpu {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = field(&info, &["model name", "Model", "Hardware"]).unwrap_or("unknown").to_owned();
        Cpu { model, features: features(&info) }
    }

    /// Whether it can do something.
    pub fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }

    /// What it computes products of bfloat16 with, the fastest that it has; without one they are no faster than those of
    /// float32. Tiles are several times as fast, instructions on vectors up to twice.
    pub fn bf16(&self) -> Option<Feature> {
        [Feature::AmxBf16, Feature::Avx512Bf16, Feature::Bf16].into_iter().find(|unit| self.has(*unit))
    }
}

#[cfg(target_arch = "x86_64")]
fn features(info: &str) -> Vec<Feature> {
    use std::arch::is_x86_feature_detected as is;
    // Tiles need the system to save them, so its list counts and not the processor's own.
    let flags = field(info, &["flags"]).unwrap_or_default();
    let flag = |name: &str| flags.split_whitespace().any(|flag| flag == name);
    let tiles = flag("amx_tile");
    let avx512 = is!("avx512f") && is!("avx512bw") && is!("avx512dq") && is!("avx512vl");
    [
        (Feature::Avx2, is!("avx2")),
        (Feature::Fma, is!("fma")),
        (Feature::AvxVnni, flag("avx_vnni")),
        (Feature::Avx512, avx512),
        (Feature::Avx512Vnni, avx512 && is!("avx512vnni")),
        (Feature::Avx512Bf16, avx512 && is!("avx512bf16")),
        (Feature::AmxInt8, tiles && flag("amx_int8")),
        (Feature::AmxBf16, tiles && flag("amx_bf16")),
    ]
    .into_iter()
    .filter_map(|(feature, has)| has.then_some(feature))
    .collect()
}

#[cfg(target_arch = "aarch64")]
fn features(_info: &str) -> Vec<Feature> {
    use std::arch::is_aarch64_feature_detected as is;
    [
        (Feature::Neon, is!("neon")),
        (Feature::DotProd, is!("dotprod")),
        (Feature::I8mm, is!("i8mm")),
        (Feature::Bf16, is!("bf16")),
        (Feature::Sve, is!("sve")),
    ]
    .into_iter()
    .filter_map(|(feature, has)| has.then_some(feature))
    .collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features(_info: &str) -> Vec<Feature> {
    Vec::new()
}

/// What this process may use of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Processors of the machine, those of hyper-threads counted.
    pub n_processors: usize,
    /// Processors that this process may use: less where a container or an affinity says so.
    pub n_usable: usize,
    /// Bytes of memory of the machine.
    pub memory: Option<u64>,
    /// Bytes of memory that the container may use, where that is less.
    pub memory_limit: Option<u64>,
}

impl Machine {
    /// This one.
    pub fn here() -> Machine {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let usable = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let listed = info.lines().filter(|line| line.starts_with("processor")).count();
        let memory = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_memory(&text));
        let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
        let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = group.lines().find_map(|line| line.strip_prefix("0::"));
        let own = own.map(|group| format!("/sys/fs/cgroup{}/memory.max", group.trim_end_matches('/')));
        let limit = limits
            .into_iter()
            .map(str::to_owned)
            .chain(own)
            .filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok())
            .min();
        Machine {
            n_processors: listed.max(usable),
            n_usable: usable,
            memory,
            memory_limit: limit.filter(|limit| memory.is_none_or(|memory| *limit < memory)),
        }
    }
}

fn total_memory(text: &str) -> Option<u64> {
    let kib: u64 = field(text, &["MemTotal"])?.trim_end_matches("kB").trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The value of the first line with one of these names before a colon.
fn field<'a>(text: &'a str, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == *name).then_some(value.trim())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_files_are_read() {
        let text = "processor\t: 0\nmodel name\t: A processor\nflags\t\t: avx2 amx_tile\n";
        assert_eq!(field(text, &["Hardware", "model name"]), Some("A processor"));
        assert_eq!(field(text, &["Features"]), None);
        assert_eq!(total_memory("MemTotal:       24000000 kB\nMemFree: 1 kB\n"), Some(24_576_000_000));
        assert_eq!(total_memory("MemTotal: x kB"), None);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn tiles_count_only_where_the_system_names_them() {
        let with = features("flags : amx_tile amx_bf16 amx_int8\n");
        assert!(with.contains(&Feature::AmxBf16) && with.contains(&Feature::AmxInt8));
        assert!(!features("flags : amx_bf16\n").contains(&Feature::AmxBf16));
        assert!(!features("").contains(&Feature::AmxBf16));
    }

    #[test]
    fn this_machine_has_a_processor_and_memory() {
        let machine = Machine::here();
        assert!(machine.n_usable >= 1 && machine.n_usable <= machine.n_processors);
        assert!(machine.memory.is_none_or(|memory| memory > 1 << 20));
    }
}
