# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_kcap_global_optspecs
    string join \n h/help V/version
end

function __fish_kcap_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_kcap_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_kcap_using_subcommand
    set -l cmd (__fish_kcap_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c kcap -n "__fish_kcap_needs_command" -s h -l help -d 'Print help'
complete -c kcap -n "__fish_kcap_needs_command" -s V -l version -d 'Print version'
complete -c kcap -n "__fish_kcap_needs_command" -f -a "run" -d 'Trace a command, and say which capabilities it needs'
complete -c kcap -n "__fish_kcap_needs_command" -f -a "build" -d 'Build Dockerfiles, traced, and say which capabilities they need'
complete -c kcap -n "__fish_kcap_needs_command" -f -a "prove" -d 'Build Dockerfiles again with less, until the smallest set is found that gives the same image'
complete -c kcap -n "__fish_kcap_needs_command" -f -a "watch" -d 'Trace every build that others start on this host, and write a report of each'
complete -c kcap -n "__fish_kcap_needs_command" -f -a "report" -d 'Render saved captures or reports: one as it is, several as one answer'
complete -c kcap -n "__fish_kcap_needs_command" -f -a "check" -d 'Hold reports against what is allowed, or against earlier ones'
complete -c kcap -n "__fish_kcap_needs_command" -f -a "compare" -d 'Say what differs between two built images; exit 1 where they differ'
complete -c kcap -n "__fish_kcap_needs_command" -f -a "doctor" -d 'Say what this host can trace, and what to do where it cannot'
complete -c kcap -n "__fish_kcap_needs_command" -f -a "generate" -d 'Write man pages, shell completions and JSON Schemas'
complete -c kcap -n "__fish_kcap_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kcap -n "__fish_kcap_using_subcommand run" -l dockerfile -d 'The Dockerfile that the command builds; else what the executor\'s command line names is read inside its container' -r -F
complete -c kcap -n "__fish_kcap_using_subcommand run" -l report -d 'Write the JSON report; - is standard output' -r -F
complete -c kcap -n "__fish_kcap_using_subcommand run" -l capture -d 'Write the capture, from which the report can be made again; - is standard output' -r -F
complete -c kcap -n "__fish_kcap_using_subcommand run" -l format -d 'What goes to standard output' -r -f -a "table\t'One screen for people, 80 columns'
json\t'The report itself, `kcap.report/v1`'
markdown\t'A comment for a merge request'
html\t'One self-contained page for people: what is needed, line by line, with the evidence'
in-toto\t'An in-toto statement about the Dockerfile and the image, to be signed: the predicate is the report'
docker\t'Flags of docker run'
podman\t'Flags of podman run'
kubernetes\t'A container\'s securityContext; with --wrap pod, a whole pod of Kaniko\'s'
tekton\t'The step of a Tekton task'
gitlab\t'GitLab Runner\'s config.toml'
kyverno\t'A Kyverno policy'
openshift\t'OpenShift\'s SecurityContextConstraints'
oci\t'Capabilities of an OCI runtime\'s config.json'"
complete -c kcap -n "__fish_kcap_using_subcommand run" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c kcap -n "__fish_kcap_using_subcommand run" -l container -d 'Attach to a container that already runs, by its id or name' -r
complete -c kcap -n "__fish_kcap_using_subcommand run" -l pid -d 'Attach to the cgroup of a process' -r
complete -c kcap -n "__fish_kcap_using_subcommand run" -l cgroup -d 'Attach to a cgroup, by its folder or its path in /proc/PID/cgroup' -r -F
complete -c kcap -n "__fish_kcap_using_subcommand run" -l hook -d 'How checks are seen: auto, tp_btf, fexit or kprobe' -r
complete -c kcap -n "__fish_kcap_using_subcommand run" -l match -d 'Path of the executor inside its container; several can be given' -r
complete -c kcap -n "__fish_kcap_using_subcommand run" -l grace -d 'Seconds that a build may take to end after a signal, before it is killed' -r
complete -c kcap -n "__fish_kcap_using_subcommand run" -l ring-size -d 'Bytes of the ring buffer, a power of two of at least 4096' -r
complete -c kcap -n "__fish_kcap_using_subcommand run" -l table-size -d 'Buckets of each CPU\'s tally table, a power of two of at least 2' -r
complete -c kcap -n "__fish_kcap_using_subcommand run" -l slots -d 'System calls whose outcome can be open at once, a power of two' -r
complete -c kcap -n "__fish_kcap_using_subcommand run" -s q -l quiet -d 'No report on standard output'
complete -c kcap -n "__fish_kcap_using_subcommand run" -s v -l verbose -d 'Say how the trace is made; -vv adds the log of the kernel side'
complete -c kcap -n "__fish_kcap_using_subcommand run" -l argv -d 'Record arguments of executed programs: they can hold secrets'
complete -c kcap -n "__fish_kcap_using_subcommand run" -l no-outcome -d 'Do not follow system calls to their end: cheaper for the host, and more is unsure'
complete -c kcap -n "__fish_kcap_using_subcommand run" -l verify -d 'Compute every result as well, and fail where it is not the kernel\'s'
complete -c kcap -n "__fish_kcap_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kcap -n "__fish_kcap_using_subcommand run" -s V -l version -d 'Print version'
complete -c kcap -n "__fish_kcap_using_subcommand build" -s f -l file -d 'A Dockerfile; or a folder, for every Dockerfile below it; or a pattern such as \'*/Dockerfile\'' -r -F
complete -c kcap -n "__fish_kcap_using_subcommand build" -s c -l context -d 'The build context, a folder; without it, each Dockerfile\'s own' -r -F
complete -c kcap -n "__fish_kcap_using_subcommand build" -l engine -d 'What runs the containers' -r -f -a "auto\t'The first that works'
docker\t'The docker command'
podman\t'The podman command'
oci\t'A bundle of kcap\'s own, run by runc or crun: needs no daemon'
kubernetes\t'Jobs in a cluster, of kcap prove: nothing is traced there'"
complete -c kcap -n "__fish_kcap_using_subcommand build" -l executor -d 'The executor: an image\'s name, or the path of an OCI layout, a docker archive or a Kaniko binary' -r
complete -c kcap -n "__fish_kcap_using_subcommand build" -l cap-drop -d 'Capabilities that the container does not get, of Docker\'s default ones: names, or all' -r
complete -c kcap -n "__fish_kcap_using_subcommand build" -l cap-add -d 'Capabilities that it gets beside: names, or all' -r
complete -c kcap -n "__fish_kcap_using_subcommand build" -l seccomp -d 'The container\'s seccomp profile: docker\'s, or none' -r -f -a "docker\t'As docker\'s: system calls are let through by the capabilities held'
none\t'None, as Kubernetes has it by default'"
complete -c kcap -n "__fish_kcap_using_subcommand build" -l network -d 'The container\'s network, as the engine calls it' -r
complete -c kcap -n "__fish_kcap_using_subcommand build" -l env -d 'A variable of the executor; without a value, kcap\'s own is passed on' -r
complete -c kcap -n "__fish_kcap_using_subcommand build" -l engine-flag -d 'A flag for docker or podman, such as --engine-flag=--memory=4g; several can be given' -r
complete -c kcap -n "__fish_kcap_using_subcommand build" -s j -l jobs -d 'How many builds run side by side' -r
complete -c kcap -n "__fish_kcap_using_subcommand build" -s o -l out -d 'Write a JSON report of each into this folder, named after its Dockerfile\'s path' -r -F
complete -c kcap -n "__fish_kcap_using_subcommand build" -l report -d 'Write the JSON report of the only one; - is standard output' -r -F
complete -c kcap -n "__fish_kcap_using_subcommand build" -l capture -d 'Write the capture, from which the report can be made again; a folder where there are several' -r -F
complete -c kcap -n "__fish_kcap_using_subcommand build" -l format -d 'What goes to standard output' -r -f -a "table\t'One screen for people, 80 columns'
json\t'The report itself, `kcap.report/v1`'
markdown\t'A comment for a merge request'
html\t'One self-contained page for people: what is needed, line by line, with the evidence'
in-toto\t'An in-toto statement about the Dockerfile and the image, to be signed: the predicate is the report'
docker\t'Flags of docker run'
podman\t'Flags of podman run'
kubernetes\t'A container\'s securityContext; with --wrap pod, a whole pod of Kaniko\'s'
tekton\t'The step of a Tekton task'
gitlab\t'GitLab Runner\'s config.toml'
kyverno\t'A Kyverno policy'
openshift\t'OpenShift\'s SecurityContextConstraints'
oci\t'Capabilities of an OCI runtime\'s config.json'"
complete -c kcap -n "__fish_kcap_using_subcommand build" -l wrap -d 'With --format kubernetes: what to put the securityContext into' -r -f -a "pod\t'A whole pod that builds with Kaniko'"
complete -c kcap -n "__fish_kcap_using_subcommand build" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c kcap -n "__fish_kcap_using_subcommand build" -l hook -d 'How checks are seen: auto, tp_btf, fexit or kprobe' -r
complete -c kcap -n "__fish_kcap_using_subcommand build" -l match -d 'Path of the executor inside its container; several can be given' -r
complete -c kcap -n "__fish_kcap_using_subcommand build" -l grace -d 'Seconds that a build may take to end after a signal, before it is killed' -r
complete -c kcap -n "__fish_kcap_using_subcommand build" -l ring-size -d 'Bytes of the ring buffer, a power of two of at least 4096' -r
complete -c kcap -n "__fish_kcap_using_subcommand build" -l table-size -d 'Buckets of each CPU\'s tally table, a power of two of at least 2' -r
complete -c kcap -n "__fish_kcap_using_subcommand build" -l slots -d 'System calls whose outcome can be open at once, a power of two' -r
complete -c kcap -n "__fish_kcap_using_subcommand build" -l push -d 'Push the images to Kaniko\'s --destination'
complete -c kcap -n "__fish_kcap_using_subcommand build" -s q -l quiet -d 'No progress on standard error: only what went wrong'
complete -c kcap -n "__fish_kcap_using_subcommand build" -s v -l verbose -d 'Show the builds\' output and say how the trace is made; -vv adds the log of the kernel side'
complete -c kcap -n "__fish_kcap_using_subcommand build" -l argv -d 'Record arguments of executed programs: they can hold secrets'
complete -c kcap -n "__fish_kcap_using_subcommand build" -l no-outcome -d 'Do not follow system calls to their end: cheaper for the host, and more is unsure'
complete -c kcap -n "__fish_kcap_using_subcommand build" -l verify -d 'Compute every result as well, and fail where it is not the kernel\'s'
complete -c kcap -n "__fish_kcap_using_subcommand build" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kcap -n "__fish_kcap_using_subcommand build" -s V -l version -d 'Print version'
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l budget -d 'Most builds beside the first, or how long to go on: 5, 90s, 30m, 2h' -r
complete -c kcap -n "__fish_kcap_using_subcommand prove" -s f -l file -d 'A Dockerfile; or a folder, for every Dockerfile below it; or a pattern such as \'*/Dockerfile\'' -r -F
complete -c kcap -n "__fish_kcap_using_subcommand prove" -s c -l context -d 'The build context, a folder; without it, each Dockerfile\'s own' -r -F
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l engine -d 'What runs the containers' -r -f -a "auto\t'The first that works'
docker\t'The docker command'
podman\t'The podman command'
oci\t'A bundle of kcap\'s own, run by runc or crun: needs no daemon'
kubernetes\t'Jobs in a cluster, of kcap prove: nothing is traced there'"
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l executor -d 'The executor: an image\'s name, or the path of an OCI layout, a docker archive or a Kaniko binary' -r
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l cap-drop -d 'Capabilities that the container does not get, of Docker\'s default ones: names, or all' -r
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l cap-add -d 'Capabilities that it gets beside: names, or all' -r
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l seccomp -d 'The container\'s seccomp profile: docker\'s, or none' -r -f -a "docker\t'As docker\'s: system calls are let through by the capabilities held'
none\t'None, as Kubernetes has it by default'"
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l network -d 'The container\'s network, as the engine calls it' -r
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l env -d 'A variable of the executor; without a value, kcap\'s own is passed on' -r
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l engine-flag -d 'A flag for docker or podman, such as --engine-flag=--memory=4g; several can be given' -r
complete -c kcap -n "__fish_kcap_using_subcommand prove" -s j -l jobs -d 'How many builds run side by side' -r
complete -c kcap -n "__fish_kcap_using_subcommand prove" -s o -l out -d 'Write a JSON report of each into this folder, named after its Dockerfile\'s path' -r -F
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l report -d 'Write the JSON report of the only one; - is standard output' -r -F
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l capture -d 'Write the capture, from which the report can be made again; a folder where there are several' -r -F
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l format -d 'What goes to standard output' -r -f -a "table\t'One screen for people, 80 columns'
json\t'The report itself, `kcap.report/v1`'
markdown\t'A comment for a merge request'
html\t'One self-contained page for people: what is needed, line by line, with the evidence'
in-toto\t'An in-toto statement about the Dockerfile and the image, to be signed: the predicate is the report'
docker\t'Flags of docker run'
podman\t'Flags of podman run'
kubernetes\t'A container\'s securityContext; with --wrap pod, a whole pod of Kaniko\'s'
tekton\t'The step of a Tekton task'
gitlab\t'GitLab Runner\'s config.toml'
kyverno\t'A Kyverno policy'
openshift\t'OpenShift\'s SecurityContextConstraints'
oci\t'Capabilities of an OCI runtime\'s config.json'"
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l wrap -d 'With --format kubernetes: what to put the securityContext into' -r -f -a "pod\t'A whole pod that builds with Kaniko'"
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l hook -d 'How checks are seen: auto, tp_btf, fexit or kprobe' -r
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l match -d 'Path of the executor inside its container; several can be given' -r
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l grace -d 'Seconds that a build may take to end after a signal, before it is killed' -r
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l ring-size -d 'Bytes of the ring buffer, a power of two of at least 4096' -r
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l table-size -d 'Buckets of each CPU\'s tally table, a power of two of at least 2' -r
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l slots -d 'System calls whose outcome can be open at once, a power of two' -r
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l pod -d 'The pod that runs Kaniko: a Pod, Job, CronJob or PodTemplate, in YAML or JSON' -r -F
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l container -d 'Which of its containers runs Kaniko, where that cannot be told' -r
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l results -d 'Where the images of replays are pushed to, and read from: a repository' -r
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l seen -d 'What a trace of these builds says, from kcap watch, build or run: reports, or folders of them' -r -F
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l kube-context -d 'The cluster, as kubectl\'s configuration calls it' -r
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l namespace -d 'The namespace of the Jobs; without it, the pod\'s, else kubectl\'s' -r
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l fresh -d 'Build all anew, whatever was kept of earlier proofs'
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l push -d 'Push the images to Kaniko\'s --destination'
complete -c kcap -n "__fish_kcap_using_subcommand prove" -s q -l quiet -d 'No progress on standard error: only what went wrong'
complete -c kcap -n "__fish_kcap_using_subcommand prove" -s v -l verbose -d 'Show the builds\' output and say how the trace is made; -vv adds the log of the kernel side'
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l argv -d 'Record arguments of executed programs: they can hold secrets'
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l no-outcome -d 'Do not follow system calls to their end: cheaper for the host, and more is unsure'
complete -c kcap -n "__fish_kcap_using_subcommand prove" -l verify -d 'Compute every result as well, and fail where it is not the kernel\'s'
complete -c kcap -n "__fish_kcap_using_subcommand prove" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kcap -n "__fish_kcap_using_subcommand prove" -s V -l version -d 'Print version'
complete -c kcap -n "__fish_kcap_using_subcommand watch" -s o -l out -d 'Where reports go: a folder, or s3://BUCKET/PREFIX in an object store (the variables of the AWS tools say where it is and who asks: AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, ...)' -r -F
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l only -d 'Only builds whose container or pod has this label or annotation; several must all be there' -r
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l label -d 'Labels and annotations that reports carry' -r
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l config -d 'Settings that SIGHUP has read again: only, labels, keep-days, keep-megabytes, webhook' -r -F
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l keep-days -d 'Remove reports that are older' -r
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l keep-megabytes -d 'Remove the oldest reports where there is more in all' -r
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l webhook -d 'Post refusals and lost reports there as well; better in --config, where others do not see it' -r
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l docker-socket -d 'Where Docker or podman answers whose containers are [default: the usual places]' -r -F
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l cri-socket -d 'Where containerd or CRI-O does, by the container runtime interface [default: the usual places]' -r -F
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l metrics -d 'Give figures for Prometheus there, time spent in BPF programs included' -r
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l max-sessions -d 'Most builds at once; others are left out, and that is told' -r
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l session-memory -d 'Memory that one build may take; what is beyond is lost, and its report says so' -r
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l memory -d 'Memory that all builds together may take: half of it in equal shares, the rest as they need it' -r
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l queue-memory -d 'Memory for reports that cannot be written yet; beyond, the oldest are given up' -r
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l hook -d 'How checks are seen: auto, tp_btf, fexit or kprobe' -r
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l match -d 'Path of the executor inside its container; several can be given' -r
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l grace -d 'Seconds that a build may take to end after a signal, before it is killed' -r
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l ring-size -d 'Bytes of the ring buffer, a power of two of at least 4096' -r
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l table-size -d 'Buckets of each CPU\'s tally table, a power of two of at least 2' -r
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l slots -d 'System calls whose outcome can be open at once, a power of two' -r
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l captures -d 'Write the capture of each build as well, from which its report can be made again'
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l keep-capabilities -d 'Keep all capabilities that it is started with'
complete -c kcap -n "__fish_kcap_using_subcommand watch" -s v -l verbose -d 'Say how the trace is made; -vv adds the log of the kernel side'
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l argv -d 'Record arguments of executed programs: they can hold secrets'
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l no-outcome -d 'Do not follow system calls to their end: cheaper for the host, and more is unsure'
complete -c kcap -n "__fish_kcap_using_subcommand watch" -l verify -d 'Compute every result as well, and fail where it is not the kernel\'s'
complete -c kcap -n "__fish_kcap_using_subcommand watch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kcap -n "__fish_kcap_using_subcommand watch" -s V -l version -d 'Print version'
complete -c kcap -n "__fish_kcap_using_subcommand report" -l why -d 'Explain one capability: what it allows, why the builds asked for it, what would avoid it' -r
complete -c kcap -n "__fish_kcap_using_subcommand report" -l profiles -d 'Group the Dockerfiles of several reports into at most N sets' -r
complete -c kcap -n "__fish_kcap_using_subcommand report" -l format -d 'What goes to standard output' -r -f -a "table\t'One screen for people, 80 columns'
json\t'The report itself, `kcap.report/v1`'
markdown\t'A comment for a merge request'
html\t'One self-contained page for people: what is needed, line by line, with the evidence'
in-toto\t'An in-toto statement about the Dockerfile and the image, to be signed: the predicate is the report'
docker\t'Flags of docker run'
podman\t'Flags of podman run'
kubernetes\t'A container\'s securityContext; with --wrap pod, a whole pod of Kaniko\'s'
tekton\t'The step of a Tekton task'
gitlab\t'GitLab Runner\'s config.toml'
kyverno\t'A Kyverno policy'
openshift\t'OpenShift\'s SecurityContextConstraints'
oci\t'Capabilities of an OCI runtime\'s config.json'"
complete -c kcap -n "__fish_kcap_using_subcommand report" -l wrap -d 'With --format kubernetes: what to put the securityContext into' -r -f -a "pod\t'A whole pod that builds with Kaniko'"
complete -c kcap -n "__fish_kcap_using_subcommand report" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c kcap -n "__fish_kcap_using_subcommand report" -l allow-incomplete -d 'Take reports in which something was lost'
complete -c kcap -n "__fish_kcap_using_subcommand report" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kcap -n "__fish_kcap_using_subcommand report" -s V -l version -d 'Print version'
complete -c kcap -n "__fish_kcap_using_subcommand check" -l allow -d 'Capabilities that are allowed' -r
complete -c kcap -n "__fish_kcap_using_subcommand check" -l policy -d 'A named policy, or a file with one; - is standard input' -r
complete -c kcap -n "__fish_kcap_using_subcommand check" -l baseline -d 'An earlier report, or a folder of them: what came, what went, and by which instruction' -r -F
complete -c kcap -n "__fish_kcap_using_subcommand check" -l container -d 'Of a policy file with several containers, the one of that name' -r
complete -c kcap -n "__fish_kcap_using_subcommand check" -l format -d 'What goes to standard output' -r -f -a "table\t'For people, 80 columns'
json\t'The check itself, `kcap.check/v1`'
markdown\t'A comment for a merge request'
sarif\t'SARIF 2.1.0, as GitHub\'s code scanning takes it'
junit\t'JUnit XML, as GitLab and others take it: a test for each Dockerfile'"
complete -c kcap -n "__fish_kcap_using_subcommand check" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c kcap -n "__fish_kcap_using_subcommand check" -l allow-unsure -d 'Let what one run cannot settle pass'
complete -c kcap -n "__fish_kcap_using_subcommand check" -l allow-incomplete -d 'Let reports pass in which something was lost, and builds that did not succeed'
complete -c kcap -n "__fish_kcap_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kcap -n "__fish_kcap_using_subcommand check" -s V -l version -d 'Print version'
complete -c kcap -n "__fish_kcap_using_subcommand compare" -l format -d 'What goes to standard output' -r -f -a "table\t'For people, 80 columns'
json\t'All of it'
markdown\t'A comment for a merge request'"
complete -c kcap -n "__fish_kcap_using_subcommand compare" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c kcap -n "__fish_kcap_using_subcommand compare" -l exact -d 'Count every difference: content that rules of noise are about too'
complete -c kcap -n "__fish_kcap_using_subcommand compare" -l all -d 'Show all differences, however many'
complete -c kcap -n "__fish_kcap_using_subcommand compare" -s q -l quiet -d 'Nothing on standard output: the exit code says it'
complete -c kcap -n "__fish_kcap_using_subcommand compare" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kcap -n "__fish_kcap_using_subcommand compare" -s V -l version -d 'Print version'
complete -c kcap -n "__fish_kcap_using_subcommand doctor" -l format -d 'What to print' -r -f -a "table\t'For people'
json\t'For programs'"
complete -c kcap -n "__fish_kcap_using_subcommand doctor" -l color -d 'When to use colours' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c kcap -n "__fish_kcap_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kcap -n "__fish_kcap_using_subcommand doctor" -s V -l version -d 'Print version'
complete -c kcap -n "__fish_kcap_using_subcommand generate; and not __fish_seen_subcommand_from man completions schema all help" -s h -l help -d 'Print help'
complete -c kcap -n "__fish_kcap_using_subcommand generate; and not __fish_seen_subcommand_from man completions schema all help" -s V -l version -d 'Print version'
complete -c kcap -n "__fish_kcap_using_subcommand generate; and not __fish_seen_subcommand_from man completions schema all help" -f -a "man" -d 'Write the man pages into a folder'
complete -c kcap -n "__fish_kcap_using_subcommand generate; and not __fish_seen_subcommand_from man completions schema all help" -f -a "completions" -d 'Print a shell\'s completions'
complete -c kcap -n "__fish_kcap_using_subcommand generate; and not __fish_seen_subcommand_from man completions schema all help" -f -a "schema" -d 'Print the JSON Schema of something that kcap writes'
complete -c kcap -n "__fish_kcap_using_subcommand generate; and not __fish_seen_subcommand_from man completions schema all help" -f -a "all" -d 'Write man pages, completions and schemas into folders below one, as packages have them'
complete -c kcap -n "__fish_kcap_using_subcommand generate; and not __fish_seen_subcommand_from man completions schema all help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kcap -n "__fish_kcap_using_subcommand generate; and __fish_seen_subcommand_from man" -s h -l help -d 'Print help'
complete -c kcap -n "__fish_kcap_using_subcommand generate; and __fish_seen_subcommand_from man" -s V -l version -d 'Print version'
complete -c kcap -n "__fish_kcap_using_subcommand generate; and __fish_seen_subcommand_from completions" -s h -l help -d 'Print help'
complete -c kcap -n "__fish_kcap_using_subcommand generate; and __fish_seen_subcommand_from completions" -s V -l version -d 'Print version'
complete -c kcap -n "__fish_kcap_using_subcommand generate; and __fish_seen_subcommand_from schema" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kcap -n "__fish_kcap_using_subcommand generate; and __fish_seen_subcommand_from schema" -s V -l version -d 'Print version'
complete -c kcap -n "__fish_kcap_using_subcommand generate; and __fish_seen_subcommand_from all" -s h -l help -d 'Print help'
complete -c kcap -n "__fish_kcap_using_subcommand generate; and __fish_seen_subcommand_from all" -s V -l version -d 'Print version'
complete -c kcap -n "__fish_kcap_using_subcommand generate; and __fish_seen_subcommand_from help" -f -a "man" -d 'Write the man pages into a folder'
complete -c kcap -n "__fish_kcap_using_subcommand generate; and __fish_seen_subcommand_from help" -f -a "completions" -d 'Print a shell\'s completions'
complete -c kcap -n "__fish_kcap_using_subcommand generate; and __fish_seen_subcommand_from help" -f -a "schema" -d 'Print the JSON Schema of something that kcap writes'
complete -c kcap -n "__fish_kcap_using_subcommand generate; and __fish_seen_subcommand_from help" -f -a "all" -d 'Write man pages, completions and schemas into folders below one, as packages have them'
complete -c kcap -n "__fish_kcap_using_subcommand generate; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kcap -n "__fish_kcap_using_subcommand help; and not __fish_seen_subcommand_from run build prove watch report check compare doctor generate help" -f -a "run" -d 'Trace a command, and say which capabilities it needs'
complete -c kcap -n "__fish_kcap_using_subcommand help; and not __fish_seen_subcommand_from run build prove watch report check compare doctor generate help" -f -a "build" -d 'Build Dockerfiles, traced, and say which capabilities they need'
complete -c kcap -n "__fish_kcap_using_subcommand help; and not __fish_seen_subcommand_from run build prove watch report check compare doctor generate help" -f -a "prove" -d 'Build Dockerfiles again with less, until the smallest set is found that gives the same image'
complete -c kcap -n "__fish_kcap_using_subcommand help; and not __fish_seen_subcommand_from run build prove watch report check compare doctor generate help" -f -a "watch" -d 'Trace every build that others start on this host, and write a report of each'
complete -c kcap -n "__fish_kcap_using_subcommand help; and not __fish_seen_subcommand_from run build prove watch report check compare doctor generate help" -f -a "report" -d 'Render saved captures or reports: one as it is, several as one answer'
complete -c kcap -n "__fish_kcap_using_subcommand help; and not __fish_seen_subcommand_from run build prove watch report check compare doctor generate help" -f -a "check" -d 'Hold reports against what is allowed, or against earlier ones'
complete -c kcap -n "__fish_kcap_using_subcommand help; and not __fish_seen_subcommand_from run build prove watch report check compare doctor generate help" -f -a "compare" -d 'Say what differs between two built images; exit 1 where they differ'
complete -c kcap -n "__fish_kcap_using_subcommand help; and not __fish_seen_subcommand_from run build prove watch report check compare doctor generate help" -f -a "doctor" -d 'Say what this host can trace, and what to do where it cannot'
complete -c kcap -n "__fish_kcap_using_subcommand help; and not __fish_seen_subcommand_from run build prove watch report check compare doctor generate help" -f -a "generate" -d 'Write man pages, shell completions and JSON Schemas'
complete -c kcap -n "__fish_kcap_using_subcommand help; and not __fish_seen_subcommand_from run build prove watch report check compare doctor generate help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kcap -n "__fish_kcap_using_subcommand help; and __fish_seen_subcommand_from generate" -f -a "man" -d 'Write the man pages into a folder'
complete -c kcap -n "__fish_kcap_using_subcommand help; and __fish_seen_subcommand_from generate" -f -a "completions" -d 'Print a shell\'s completions'
complete -c kcap -n "__fish_kcap_using_subcommand help; and __fish_seen_subcommand_from generate" -f -a "schema" -d 'Print the JSON Schema of something that kcap writes'
complete -c kcap -n "__fish_kcap_using_subcommand help; and __fish_seen_subcommand_from generate" -f -a "all" -d 'Write man pages, completions and schemas into folders below one, as packages have them'
