# What the image debian-12-podman has beyond debian-12: podman, and a small container image that is
# there without a network. Read with `.` by the build.sh of debian-12.
recipe=debian-12-podman
more_packages=,podman,crun,conmon,netavark,aardvark-dns,iptables

# Units that are for containers of a lasting machine.
useless_container_units='podman-auto-update.timer podman-auto-update.service podman-restart.service
    podman.service podman.socket'

configure_more() {
    need_commands sha256sum base64
    for unit in $useless_container_units; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    etc=$root/etc/containers
    printf '[storage]\ndriver = "overlay"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n' \
        >"$etc/storage.conf"
    # Debian's default is CNI, whose plug-ins are not here. Logs and events go to files: a step
    # would wait for the journal.
    rm -rf "$root/etc/cni"
    printf '[network]\nnetwork_backend = "netavark"\n[containers]\nlog_driver = "k8s-file"\n[engine]\nevents_logger = "file"\n' \
        >"$etc/containers.conf"
    # Names without a registry mean what they mean for docker, also in the FROM of a file.
    printf 'unqualified-search-registries = ["docker.io"]\nshort-name-mode = "permissive"\n' \
        >"$etc/registries.conf.d/solstice.conf"
    say "making the container image localhost/busybox"
    add_busybox_image
}

# Places an image as podman's store has it after an import: podman itself would need a running
# system for that. The name localhost/busybox says that no registry has it.
add_busybox_image() {
    layer=$work/layer
    mkdir -p "$layer/bin" "$layer/etc" "$layer/root" "$layer/tmp"
    chmod 755 "$layer"
    chmod 1777 "$layer/tmp"
    cp "$busybox" "$layer/bin/busybox"
    link_applets "$layer"
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' \
        >"$layer/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$layer/etc/group"
    tar -C "$layer" --numeric-owner --owner=0 --group=0 --mtime=@0 --sort=name \
        -cf "$work/layer.tar" .
    layer_id=$(sha_of "$work/layer.tar")
    layer_size=$(size_of "$work/layer.tar")
    created=2026-01-01T00:00:00Z

    printf '{"created":"%s","architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"%s","created_by":"solstice"}]}' \
        "$created" "$layer_id" "$created" >"$work/config.json"
    image_id=$(sha_of "$work/config.json")
    config_size=$(size_of "$work/config.json")
    printf '{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%s","size":%s}]}' \
        "$image_id" "$config_size" "$layer_id" "$layer_size" >"$work/manifest.json"
    manifest_id=$(sha_of "$work/manifest.json")
    manifest_size=$(size_of "$work/manifest.json")

    store=$root/var/lib/containers/storage
    link=SOLSTICEBUSYBOX00000000001
    mkdir -p "$store/overlay/l" "$store/overlay-layers" "$store/overlay-images/$image_id"
    chmod 700 "$store/overlay" "$store/overlay-layers" "$store/overlay-images" \
        "$store/overlay-images/$image_id"
    mkdir -p "$store/overlay/$layer_id/work" "$store/overlay/$layer_id/merged" \
        "$store/overlay/$layer_id/empty"
    cp -a "$layer" "$store/overlay/$layer_id/diff"
    printf '%s' "$link" >"$store/overlay/$layer_id/link"
    ln -s "../$layer_id/diff" "$store/overlay/l/$link"
    printf '[{"id":"%s","created":"%s","compressed-diff-digest":"sha256:%s","compressed-size":%s,"diff-digest":"sha256:%s","diff-size":%s,"uidset":[0],"gidset":[0]}]' \
        "$layer_id" "$created" "$layer_id" "$layer_size" "$layer_id" "$layer_size" \
        >"$store/overlay-layers/layers.json"
    image=$store/overlay-images/$image_id
    cp "$work/manifest.json" "$image/manifest"
    cp "$work/manifest.json" "$image/$(name_of "manifest-sha256:$manifest_id")"
    cp "$work/config.json" "$image/$(name_of "sha256:$image_id")"
    printf '[{"id":"%s","digest":"sha256:%s","names":["localhost/busybox:latest"],"layer":"%s","metadata":"{}","big-data-names":["sha256:%s","manifest-sha256:%s","manifest"],"big-data-sizes":{"manifest":%s,"manifest-sha256:%s":%s,"sha256:%s":%s},"big-data-digests":{"manifest":"sha256:%s","manifest-sha256:%s":"sha256:%s","sha256:%s":"sha256:%s"},"created":"%s"}]' \
        "$image_id" "$manifest_id" "$layer_id" "$image_id" "$manifest_id" \
        "$manifest_size" "$manifest_id" "$manifest_size" "$image_id" "$config_size" \
        "$manifest_id" "$manifest_id" "$manifest_id" "$image_id" "$image_id" "$created" \
        >"$store/overlay-images/images.json"
}

sha_of() {
    sha256sum <"$1" | cut -d ' ' -f 1
}

size_of() {
    wc -c <"$1" | tr -d ' '
}

# The name of the file in which the store keeps what has this name.
name_of() {
    printf '=%s' "$(printf '%s' "$1" | base64 -w 0)"
}
