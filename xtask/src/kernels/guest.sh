# In a guest: builds each of the named Dockerfiles on the disk, and writes what kcap recorded of it
# to the console. $0 is what our lines begin with, the rest are names.
fail() { echo "kcap-kernels cannot $*"; exit 1; }

# The disk becomes the root, as far as the kernel is concerned: in a mere chroot no build could make a
# user namespace. This shell keeps the one that it began with, and names the disk's files from there.
mkdir -p /disk
mount -t ext4 -o noatime /dev/nvme0n1 /disk || fail "mount the disk"
for place in dev proc sys; do
    mount --rbind "/$place" "/disk/$place" || fail "mount $place"
done
cd /disk || fail "enter the disk"
mount --move . / || fail "make the disk the root"

chroot . /bin/docker-registry serve /registry.yml >registry.log 2>&1 &
registry=$!
tries=0
until nc -w 2 127.0.0.1 5000 </dev/null >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || { cat registry.log; fail "reach the registry"; }
    sleep 1
done

seconds() { cut -d. -f1 /proc/uptime; }
runc="chroot . /bin/runc --root /run/runc"

for name; do
    build=builds/$name
    ln executor "$build/bundle/rootfs/kaniko/executor" || fail "link the executor"
    start=$(seconds)
    chroot . /bin/kcap run --quiet --capture "/out/$name" --dockerfile "corpus/$name/Dockerfile" \
        -- /bin/runc --root /run/runc run --bundle "/$build/bundle" "$name" \
        </dev/null >log 2>&1
    status=$?
    echo "$0 $name $status $(($(seconds) - start))"
    [ "$status" = 0 ] || tail -n 4 log
    if [ -f "out/$name" ]; then
        base64 "out/$name" | sed "s|^|$0 $name = |"
        echo "$0 $name ."
    fi
    $runc delete --force "$name" >/dev/null 2>&1
    rm -rf "$build"
done
kill "$registry"
