//! The libraries that there are: the packages that hold them and the files that are taken out of those.

use std::fmt;
use std::path::Path;

use crate::Version;

/// A native library that an engine runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// ONNX Runtime.
    OnnxRuntime,
    /// OpenVINO.
    OpenVino,
    /// TensorFlow.
    TensorFlow,
}

/// A file name, or its beginning where it ends with `*`.
type Pattern = &'static str;

impl Kind {
    /// All of them, by name.
    pub const ALL: [Kind; 3] = [Kind::OnnxRuntime, Kind::OpenVino, Kind::TensorFlow];

    /// The name in commands, settings and folders.
    pub fn name(self) -> &'static str {
        match self {
            Kind::OnnxRuntime => "onnxruntime",
            Kind::OpenVino => "openvino",
            Kind::TensorFlow => "tensorflow",
        }
    }

    /// The library of a name.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The versions that Salver is tested with, the preferred first.
    pub fn tested(self) -> &'static [&'static str] {
        match self {
            Kind::OnnxRuntime => &["1.32.0"],
            Kind::OpenVino => &["2026.4.1"],
            Kind::TensorFlow => &["2.21.0"],
        }
    }

    /// Whether Salver is tested with this version.
    pub fn is_tested(self, version: &Version) -> bool {
        self.tested().contains(&version.as_str())
    }

    /// The Python packages that hold it, the preferred first.
    pub fn packages(self) -> &'static [&'static str] {
        match self {
            Kind::OnnxRuntime => &["onnxruntime"],
            Kind::OpenVino => &["openvino"],
            // The second is four times as large on x86 (it carries code for GPUs), and the only one elsewhere.
            Kind::TensorFlow => &["tensorflow-cpu", "tensorflow"],
        }
    }

    /// The packages that are asked for on a machine of this architecture.
    pub(crate) fn packages_on(self, arch: &str) -> &'static [&'static str] {
        let all = self.packages();
        if arch == "x86_64" { &all[..1] } else { all }
    }

    /// The folder inside a wheel that holds the libraries.
    fn wheel_folder(self) -> &'static str {
        match self {
            Kind::OnnxRuntime => "onnxruntime/capi",
            Kind::OpenVino => "openvino/libs",
            Kind::TensorFlow => "tensorflow",
        }
    }

    /// The files that are taken out of it. All bindings to Python, the engines for GPUs and NPUs and the readers of formats
    /// that are not used stay behind.
    fn patterns(self) -> &'static [Pattern] {
        match self {
            Kind::OnnxRuntime => &["libonnxruntime.so*", "libonnxruntime_providers_shared.so"],
            Kind::OpenVino => &[
                "libopenvino.so*",
                "libopenvino_c.so*",
                "libopenvino_intel_cpu_plugin.so",
                "libopenvino_arm_cpu_plugin.so",
                "libopenvino_ir_frontend.so*",
                "libopenvino_onnx_frontend.so*",
                "libopenvino_tensorflow_frontend.so*",
                "libtbb.so*",
                "libtbbmalloc.so*",
                // Which cores are fast and which memory is near; it needs the second.
                "libtbbbind*",
                "libhwloc.so*",
            ],
            Kind::TensorFlow => &["libtensorflow_cc.so*", "libtensorflow_framework.so*"],
        }
    }

    /// Files of which there must be one each, or the folder or wheel is of no use.
    pub(crate) fn needed(self) -> &'static [Pattern] {
        match self {
            Kind::OnnxRuntime => &["libonnxruntime.so*"],
            Kind::OpenVino => &["libopenvino_c.so*", "libopenvino.so*"],
            Kind::TensorFlow => &["libtensorflow_cc.so*", "libtensorflow_framework.so*"],
        }
    }

    /// Where a person's folder may have the libraries: in itself, or as packages and archives lay them out.
    pub(crate) fn subfolders(self) -> &'static [&'static str] {
        match self {
            Kind::OnnxRuntime => &["", "capi", "lib"],
            Kind::OpenVino => {
                &["", "libs", "runtime/lib/intel64", "runtime/lib/aarch64", "lib/intel64", "lib"]
            }
            Kind::TensorFlow => &["", "lib"],
        }
    }

    /// The name under which a file of a wheel is installed, if it is a library to take.
    pub(crate) fn library(self, inside: &str) -> Option<&str> {
        let (folder, name) = inside.rsplit_once('/')?;
        (folder == self.wheel_folder() && self.patterns().iter().any(|pattern| fits(name, pattern)))
            .then_some(name)
    }

    /// The name under which a licence of a wheel is installed, if the file is one.
    pub(crate) fn licence(self, inside: &str) -> Option<String> {
        let (folder, name) = inside.rsplit_once('/')?;
        let upper = name.to_ascii_uppercase();
        let named = ["LICENSE", "LICENCE", "NOTICE", "COPYING", "THIRD", "AUTHORS"]
            .iter()
            .any(|word| upper.starts_with(word));
        let package = self.wheel_folder().split('/').next().unwrap_or_default();
        if let Some((dist_info, below)) = inside.split_once(".dist-info/licenses/") {
            return (!dist_info.contains('/')).then(|| below.replace('/', "-"));
        }
        let beside = folder == package || folder.ends_with(".dist-info") && !folder.contains('/');
        // TensorFlow's own licence lies with its headers.
        let among_headers = self == Kind::TensorFlow && folder == "tensorflow/include";
        (named && (beside || among_headers)).then(|| name.to_owned())
    }

    /// The version that the name of a library file tells, as far as it does.
    pub(crate) fn version_of_file(self, path: &Path) -> Option<Version> {
        let name = path.file_name()?.to_str()?;
        let (_, behind) = name.split_once(".so.")?;
        let text = match self {
            // 2641 is 2026.4.1: two digits of the year, one of the release, one of the patch.
            Kind::OpenVino if behind.len() == 4 && behind.bytes().all(|b| b.is_ascii_digit()) => {
                format!("20{}.{}.{}", &behind[..2], &behind[2..3], &behind[3..])
            }
            // `.so.1` and `.so.2` say how the library is linked and not what it is.
            _ if behind.contains('.') => behind.to_owned(),
            _ => return None,
        };
        text.parse().ok()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a file name is meant by a pattern.
pub(crate) fn fits(name: &str, pattern: Pattern) -> bool {
    match pattern.strip_suffix('*') {
        // `libtbb.so*` is `libtbb.so` and `libtbb.so.12`, not `libtbb.something`.
        Some(start) if start.ends_with(".so") => {
            name.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        }
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: Kind, inside: &str, library: Option<&str>, licence: Option<&str>) {
        assert_eq!(kind.library(inside), library, "{inside}");
        assert_eq!(kind.licence(inside).as_deref(), licence, "{inside}");
    }

    #[test]
    fn only_libraries_and_licences_are_taken() {
        let (ort, ov, tf) = (Kind::OnnxRuntime, Kind::OpenVino, Kind::TensorFlow);
        check(ort, "onnxruntime/capi/libonnxruntime.so.1.32.0", Some("libonnxruntime.so.1.32.0"), None);
        check(ort, "onnxruntime/capi/onnxruntime_pybind11_state.cpython-311-x86_64-linux-gnu.so", None, None);
        check(ort, "elsewhere/capi/libonnxruntime.so.1.32.0", None, None);
        check(ort, "libonnxruntime.so.1.32.0", None, None);
        check(ort, "onnxruntime/ThirdPartyNotices.txt", None, Some("ThirdPartyNotices.txt"));
        check(ort, "onnxruntime/LICENSE", None, Some("LICENSE"));
        check(ort, "onnxruntime/quantization/LICENSE", None, None);
        check(ov, "openvino/libs/libopenvino_c.so.2641", Some("libopenvino_c.so.2641"), None);
        check(ov, "openvino/libs/libopenvino_intel_gpu_plugin.so", None, None);
        check(ov, "openvino/libs/libtbbmalloc_proxy.so.2", None, None);
        check(ov, "openvino/libs/libtbbbind_2_5.so.3", Some("libtbbbind_2_5.so.3"), None);
        check(
            ov,
            "openvino-2026.4.1.dist-info/licenses/licensing/onednn_third-party-programs.txt",
            None,
            Some("licensing-onednn_third-party-programs.txt"),
        );
        check(tf, "tensorflow/libtensorflow_cc.so.2", Some("libtensorflow_cc.so.2"), None);
        check(tf, "tensorflow/python/_pywrap_tfe.so", None, None);
        check(tf, "tensorflow/include/LICENSE", None, Some("LICENSE"));
        check(tf, "tensorflow/include/external/ruy/LICENSE", None, None);
    }

    #[test]
    fn a_file_name_tells_the_version() {
        for (kind, name, version) in [
            (Kind::OnnxRuntime, "libonnxruntime.so.1.32.0", Some("1.32.0")),
            (Kind::OnnxRuntime, "libonnxruntime.so.1", None),
            (Kind::OnnxRuntime, "libonnxruntime.so", None),
            (Kind::OpenVino, "libopenvino_c.so.2641", Some("2026.4.1")),
            (Kind::OpenVino, "libopenvino_c.so.2024.6.0", Some("2024.6.0")),
            (Kind::TensorFlow, "libtensorflow_cc.so.2", None),
            (Kind::TensorFlow, "libtensorflow_cc.so.2.21.0", Some("2.21.0")),
        ] {
            let found = kind.version_of_file(Path::new("/x").join(name).as_path());
            assert_eq!(found.as_ref().map(Version::as_str), version, "{name}");
        }
    }
}
