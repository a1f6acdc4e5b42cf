//! Small wheels, sound unless a test changes them.

use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zip::write::SimpleFileOptions;

use crate::Platform;

/// The machine that these wheels are made for: the system of Linux on this processor, whatever runs the tests.
pub(super) fn platform() -> Platform {
    Platform { os: "linux".to_owned(), arch: std::env::consts::ARCH.to_owned(), glibc: Some((2, 28)) }
}

/// The head of a shared library for this processor with something behind it.
pub(super) fn elf(behind: &[u8]) -> Vec<u8> {
    let machine: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    elf_for(machine, behind)
}

pub(super) fn elf_for(machine: u16, behind: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0".to_vec();
    bytes.extend_from_slice(&machine.to_le_bytes());
    bytes.extend_from_slice(behind);
    bytes
}

/// A wheel to be written.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) package: String,
    pub(super) version: String,
    pub(super) tag: String,
    pub(super) files: Vec<(String, Vec<u8>)>,
    /// Names that are links.
    pub(super) links: Vec<String>,
    /// Lines of RECORD by name, in place of the right ones; an empty one is left out.
    pub(super) record: Vec<(String, String)>,
    /// Files of the description that are left out.
    pub(super) without: Vec<&'static str>,
}

impl Made {
    fn new(package: &str, version: &str, files: &[(&str, Vec<u8>)]) -> Made {
        Made {
            package: package.to_owned(),
            version: version.to_owned(),
            tag: format!("cp311-cp311-manylinux_2_28_{}", std::env::consts::ARCH),
            files: files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect(),
            links: Vec::new(),
            record: Vec::new(),
            without: Vec::new(),
        }
    }

    pub(super) fn onnxruntime(version: &str) -> Made {
        let library = format!("onnxruntime/capi/libonnxruntime.so.{version}");
        Made::new(
            "onnxruntime",
            version,
            &[
                (&library, elf(&vec![7; 300_000])),
                ("onnxruntime/capi/libonnxruntime_providers_shared.so", elf(b"shared")),
                ("onnxruntime/capi/onnxruntime_pybind11_state.so", elf(b"python")),
                ("onnxruntime/__init__.py", b"import os".to_vec()),
                ("onnxruntime/LICENSE", b"a licence".to_vec()),
                ("onnxruntime/ThirdPartyNotices.txt", b"notices".to_vec()),
                ("onnxruntime/tools/name, with a comma.py", b"".to_vec()),
            ],
        )
    }

    pub(super) fn openvino(version: &str) -> Made {
        Made::new(
            "openvino",
            version,
            &[
                ("openvino/libs/libopenvino.so.2641", elf(b"core")),
                ("openvino/libs/libopenvino_c.so.2641", elf(b"c")),
                ("openvino/libs/libopenvino_intel_cpu_plugin.so", elf(b"cpu")),
                ("openvino/libs/libopenvino_intel_gpu_plugin.so", elf(b"gpu")),
                ("openvino/libs/libtbb.so.12", elf(b"tbb")),
                ("openvino-2026.4.1.dist-info/licenses/LICENSE", b"a licence".to_vec()),
                ("openvino-2026.4.1.dist-info/licenses/licensing/third.txt", b"others".to_vec()),
            ],
        )
    }

    pub(super) fn tensorflow(version: &str) -> Made {
        Made::new(
            "tensorflow_cpu",
            version,
            &[
                ("tensorflow/libtensorflow_cc.so.2", elf(&vec![1; 500_000])),
                ("tensorflow/libtensorflow_framework.so.2", elf(b"framework")),
                ("tensorflow/python/_pywrap_tfe.so", elf(b"python")),
                ("tensorflow/include/LICENSE", b"a licence".to_vec()),
                ("tensorflow/include/external/ruy/LICENSE", b"of a header".to_vec()),
                ("tensorflow/THIRD_PARTY_NOTICES.txt", b"notices".to_vec()),
            ],
        )
    }

    /// Writes it under its usual name.
    pub(super) fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join(format!("{}-{}-{}.whl", self.package, self.version, self.tag));
        std::fs::write(&path, self.bytes()).unwrap();
        path
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let info = format!("{}-{}.dist-info", self.package, self.version);
        let mut files = self.files.clone();
        let metadata = format!(
            "Metadata-Version: 2.4\nName: {}\nVersion: {}\n\nName: not this one\n",
            self.package, self.version
        );
        files.push((format!("{info}/METADATA"), metadata.into_bytes()));
        let about = format!("Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {}\n", self.tag);
        files.push((format!("{info}/WHEEL"), about.into_bytes()));
        let lines: String = files.iter().map(|(name, bytes)| self.line(name, bytes)).collect();
        files.push((format!("{info}/RECORD"), format!("{lines}{info}/RECORD,,\n").into_bytes()));
        files.retain(|(name, _)| !self.without.iter().any(|end| name.ends_with(end)));
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, bytes) in &files {
            if self.links.contains(name) {
                zip.add_symlink(name.as_str(), "/etc/passwd", SimpleFileOptions::default()).unwrap();
            } else {
                zip.start_file(name.as_str(), SimpleFileOptions::default()).unwrap();
                zip.write_all(bytes).unwrap();
            }
        }
        zip.finish().unwrap().into_inner()
    }

    fn line(&self, name: &str, bytes: &[u8]) -> String {
        if let Some((_, line)) = self.record.iter().find(|(other, _)| other == name) {
            return line.clone();
        }
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        let quoted = if name.contains(',') { format!("\"{name}\"") } else { name.to_owned() };
        format!("{quoted},sha256={},{}\n", URL_SAFE_NO_PAD.encode(digest), bytes.len())
    }
}
