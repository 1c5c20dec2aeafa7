// SPDX-License-Identifier: Apache-2.0

// Command ociimage writes the container image as an OCI layout
// (https://github.com/opencontainers/image-spec/blob/main/image-layout.md):
// what deploy/Dockerfile describes, without a daemon, for several
// architectures, and the same bytes on each run.
//
//	ociimage VERSION REVISION FOLDER ARCH=BINARY...
//
// Every time in it is SOURCE_DATE_EPOCH. The folder must not exist.
package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func main() {
	if err := run(os.Args[1:], os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		fmt.Fprintln(os.Stderr, "ociimage:", err)
		os.Exit(2)
	}
}

// program is the only file of the image.
const program = "security-exporter"

// settings are those of deploy/Dockerfile.
func settings(version, revision string) v1.Config {
	return v1.Config{
		User:         "0:0",
		ExposedPorts: map[string]struct{}{"9102/tcp": {}},
		Entrypoint:   []string{"/" + program},
		Cmd:          []string{"--ebpf.enabled", "--path.procfs=/host/proc", "--path.sysfs=/host/sys", "--path.rootfs=/host", "--api.listen-address="},
		Labels: map[string]string{
			"org.opencontainers.image.title":       program,
			"org.opencontainers.image.description": "Prometheus exporter for the security of a Linux host",
			"org.opencontainers.image.licenses":    "Apache-2.0",
			"org.opencontainers.image.version":     version,
			"org.opencontainers.image.revision":    revision,
		},
	}
}

func run(args []string, epoch string) error {
	if len(args) < 4 {
		return fmt.Errorf("want VERSION REVISION FOLDER ARCH=BINARY..., got %d arguments", len(args))
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH=%s: must be seconds since 1970", epoch)
	}
	created := time.Unix(seconds, 0).UTC()
	version, revision, folder := args[0], args[1], args[2]
	if _, err := os.Lstat(folder); err == nil {
		return fmt.Errorf("%s: is there already", folder)
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arg := range args[3:] {
		arch, binary, _ := strings.Cut(arg, "=")
		if arch == "" || binary == "" {
			return fmt.Errorf("%s: must be ARCH=BINARY", arg)
		}
		img, err := image(binary, arch, settings(version, revision), created)
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        img,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	path, err := layout.Write(folder, empty.Index)
	if err != nil {
		return fmt.Errorf("%s: %w", folder, err)
	}
	// The reference by which skopeo and others name an image of a layout.
	return path.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": version}))
}

// image is one layer with the binary.
func image(binary, arch string, config v1.Config, created time.Time) (v1.Image, error) {
	data, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	header := &tar.Header{Name: program, Mode: 0o755, Size: int64(len(data)), ModTime: created, Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
	if err := w.WriteHeader(header); err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(9),
	)
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err = mutate.Append(img, mutate.Addendum{
		Layer:   layer,
		History: v1.History{Created: v1.Time{Time: created}, CreatedBy: "COPY /" + program},
	})
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Created, file.Config = "linux", arch, v1.Time{Time: created}, config
	return mutate.ConfigFile(img, file)
}
