//! Offsets of kernel structure members, resolved from the running kernel's BTF at load, so that
//! one object serves every kernel.

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident = $ty:literal . $($member:literal)|+ ;)*) => {
        /// Byte offsets, one per member that the programs read. A read-only global: the verifier
        /// folds each into the load.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Fields { $($(#[$doc])* pub $name: u32,)* }

        impl Fields {
            /// How many members there are.
            pub const COUNT: usize = [$(stringify!($name)),*].len();
            /// For each member in order: the structure, and the paths to try, first match wins.
            /// A dot in a path descends into a named member.
            pub const WANTED: [(&'static str, &'static [&'static str]); Self::COUNT] =
                [$(($ty, &[$($member),+])),*];

            /// The offsets in the order of [`Self::WANTED`].
            pub const fn from_array(a: [u32; Self::COUNT]) -> Self {
                let [$($name),*] = a;
                Self { $($name),* }
            }
        }
    };
}

fields! {
    /// Process id.
    task_tgid = "task_struct"."tgid";
    /// Thread id.
    task_pid = "task_struct"."pid";
    /// Subjective credentials.
    task_cred = "task_struct"."cred";
    /// Objective credentials.
    task_real_cred = "task_struct"."real_cred";
    /// Address space.
    task_mm = "task_struct"."mm";
    /// PF_* flags.
    task_flags = "task_struct"."flags";
    /// Exit status so far.
    task_exit_code = "task_struct"."exit_code";
    /// First thread.
    task_group_leader = "task_struct"."group_leader";
    /// Shared by threads.
    task_signal = "task_struct"."signal";
    /// Parent that waits.
    task_real_parent = "task_struct"."real_parent";
    /// Its set of cgroups.
    task_cgroups = "task_struct"."cgroups";
    /// 0 none, 1 strict, 2 filter.
    task_seccomp_mode = "task_struct"."seccomp.mode";
    /// x86: TS_COMPAT is bit 1.
    task_status = "task_struct"."thread_info.status";
    /// Open files.
    task_files = "task_struct"."files";
    /// Name, 16 bytes.
    task_comm = "task_struct"."comm";
    /// Namespaces.
    task_nsproxy = "task_struct"."nsproxy";
    /// Mount namespace.
    nsproxy_mnt = "nsproxy"."mnt_ns";
    /// Its inode number.
    mnt_inum = "mnt_namespace"."ns.inum";
    /// Threads still alive.
    signal_live = "signal_struct"."live";
    /// Exit status of the group.
    signal_group_exit_code = "signal_struct"."group_exit_code";
    /// SIGNAL_* flags.
    signal_flags = "signal_struct"."flags";
    /// Real uid.
    cred_uid = "cred"."uid";
    /// Real gid.
    cred_gid = "cred"."gid";
    /// Saved uid.
    cred_suid = "cred"."suid";
    /// Saved gid.
    cred_sgid = "cred"."sgid";
    /// Effective uid.
    cred_euid = "cred"."euid";
    /// Effective gid.
    cred_egid = "cred"."egid";
    /// File system uid.
    cred_fsuid = "cred"."fsuid";
    /// File system gid.
    cred_fsgid = "cred"."fsgid";
    /// Securebits.
    cred_securebits = "cred"."securebits";
    /// Inheritable set (two u32 before 6.3, a u64 since: the same bytes).
    cred_inheritable = "cred"."cap_inheritable";
    /// Permitted set.
    cred_permitted = "cred"."cap_permitted";
    /// Effective set.
    cred_effective = "cred"."cap_effective";
    /// Bounding set.
    cred_bset = "cred"."cap_bset";
    /// Ambient set.
    cred_ambient = "cred"."cap_ambient";
    /// User namespace.
    cred_user_ns = "cred"."user_ns";
    /// Parent namespace.
    ns_parent = "user_namespace"."parent";
    /// Depth.
    ns_level = "user_namespace"."level";
    /// Owner's kuid.
    ns_owner = "user_namespace"."owner";
    /// Whether the parent had SETFCAP when it made this one (5.12 on).
    ns_parent_could_setfcap = "user_namespace"."parent_could_setfcap";
    /// Its inode number.
    ns_inum = "user_namespace"."ns.inum";
    /// Unified cgroup.
    cset_dfl_cgrp = "css_set"."dfl_cgrp";
    /// Per-subsystem states.
    cset_subsys = "css_set"."subsys";
    /// A state's cgroup.
    css_cgroup = "cgroup_subsys_state"."cgroup";
    /// A state's parent.
    css_parent = "cgroup_subsys_state"."parent";
    /// A cgroup's own state.
    cgroup_self = "cgroup"."self";
    /// Its kernfs node.
    cgroup_kn = "cgroup"."kn";
    /// Its hierarchy.
    cgroup_root = "cgroup"."root";
    /// Hierarchy number, 0 for the unified one.
    root_hierarchy = "cgroup_root"."hierarchy_id";
    /// Identity: the inode number of its folder.
    kn_id = "kernfs_node"."id";
    /// Name of its folder.
    kn_name = "kernfs_node"."name";
    /// The folder above it (`parent` before 6.15).
    kn_parent = "kernfs_node"."__parent" | "parent";
    /// What the caller named.
    bprm_filename = "linux_binprm"."filename";
    /// The interpreter, or the same.
    bprm_interp = "linux_binprm"."interp";
    /// The binary.
    bprm_file = "linux_binprm"."file";
    /// A file's inode.
    file_inode = "file"."f_inode";
    /// A file's path.
    file_dentry = "file"."f_path.dentry";
    /// Inode number.
    inode_ino = "inode"."i_ino";
    /// Its file system.
    inode_sb = "inode"."i_sb";
    /// Device number, kernel encoding.
    sb_dev = "super_block"."s_dev";
    /// Start of arguments.
    mm_arg_start = "mm_struct"."arg_start";
    /// End of arguments.
    mm_arg_end = "mm_struct"."arg_end";
    /// Where the environment begins.
    mm_env_start = "mm_struct"."env_start";
    /// Where it ends.
    mm_env_end = "mm_struct"."env_end";
    /// Table of open files.
    files_fdt = "files_struct"."fdt";
    /// Its array.
    fdt_fd = "fdtable"."fd";
    /// Its length.
    fdt_max = "fdtable"."max_fds";
    /// A name's text.
    dentry_name = "dentry"."d_name.name";
    /// System call number as entered.
    regs_nr = "pt_regs"."orig_ax";
    /// Argument 1.
    regs_a0 = "pt_regs"."di";
    /// Argument 2.
    regs_a1 = "pt_regs"."si";
    /// Argument 3.
    regs_a2 = "pt_regs"."dx";
    /// Argument 4.
    regs_a3 = "pt_regs"."r10";
    /// Argument 5.
    regs_a4 = "pt_regs"."r8";
    /// Argument 6.
    regs_a5 = "pt_regs"."r9";
}

const _: () = assert!(size_of::<Fields>() == 4 * Fields::COUNT);
