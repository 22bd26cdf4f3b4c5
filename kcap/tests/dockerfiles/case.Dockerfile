from busybox as B
run a
CoPy a b
ONbuild ruN x
healthcheck none
sheLL ["/bin/sh", "-c"]
From b As c
maintainer me <a@b>
StopSignal 9
