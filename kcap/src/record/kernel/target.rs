//! What is to be known of the running kernel before anything is loaded.

use anyhow::{Context as _, Result, anyhow};
use aya::{Btf, Endianness};
use kcap_common::abi::Fields;

use super::{
    attach::{INLINED, LINEAGE, OUTCOMES},
    btf,
};

/// What is to be known of the running kernel before anything is loaded.
pub struct Kernel {
    /// Offsets of structure members.
    pub fields: Fields,
    /// Number of the cgroup subsystem that defines the scope, or `u32::MAX`.
    pub subsys: u32,
    /// It has the tracepoint `capability:cap_capable`.
    pub tracepoint: bool,
    /// `cap_capable` has the parameters that the programs expect.
    pub signature: bool,
    /// Ids of what programs attach to.
    pub index: Btf,
}

impl Kernel {
    /// Reads the kernel's BTF; `subsystem`: the constant that names the scope's hierarchy on v1.
    ///
    /// # Errors
    /// Where there is no BTF, or something that the programs need is not in it.
    pub fn read(subsystem: Option<&str>) -> Result<Self> {
        let image = std::fs::read(btf::VMLINUX).with_context(|| {
            format!(
                "cannot read {}: kcap needs a kernel with CONFIG_DEBUG_INFO_BTF",
                btf::VMLINUX
            )
        })?;
        let kernel = btf::Btf::parse(&image)?;
        let offsets: [u32; Fields::COUNT] = kernel
            .offsets(&Fields::WANTED)?
            .try_into()
            .map_err(|_| anyhow!("BTF gave an unexpected number of offsets"))?;
        let subsys = match subsystem {
            None => u32::MAX,
            Some(name) => kernel
                .enumerator("cgroup_subsys_id", name)
                .and_then(|n| u32::try_from(n).ok())
                .with_context(|| format!("this kernel has no cgroup subsystem {name}"))?,
        };
        let tracepoints: Vec<String> = LINEAGE
            .iter()
            .chain([&OUTCOMES])
            .map(|(_, tracepoint)| *tracepoint)
            .chain(["cap_capable"])
            .map(|tracepoint| format!("btf_trace_{tracepoint}"))
            .collect();
        let typedefs: Vec<&str> = tracepoints.iter().map(String::as_str).collect();
        let functions: Vec<&str> = INLINED
            .iter()
            .map(|(_, _, function, ..)| *function)
            .chain(["cap_capable"])
            .collect();
        let index = kernel.index(&typedefs, &functions);
        Ok(Self {
            fields: Fields::from_array(offsets),
            subsys,
            tracepoint: kernel.has_typedef("btf_trace_cap_capable"),
            signature: kernel.parameters("cap_capable") == Some(4),
            index: Btf::parse(&index, Endianness::default())
                .context("cannot read kcap's own index of the kernel's BTF: please report it")?,
        })
    }
}
