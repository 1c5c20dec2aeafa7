// SPDX-License-Identifier: Apache-2.0

// Command pack packs the chart with a version, as helm package does, and the
// same bytes on each run: every time in it is SOURCE_DATE_EPOCH.
//
//	pack CHART VERSION FOLDER
package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/chart/v2/util"
)

func main() {
	if err := run(os.Args[1:], os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(2)
	}
}

func run(args []string, epoch string) error {
	if len(args) != 3 {
		return fmt.Errorf("want CHART VERSION FOLDER, got %d arguments", len(args))
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH=%s: must be seconds since 1970", epoch)
	}
	chart, err := loader.LoadDir(args[0])
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	// The image that make image tags with the version is the chart's default.
	chart.Metadata.Version, chart.Metadata.AppVersion = args[1], args[1]
	chart.StampModTimes(time.Unix(seconds, 0).UTC())
	_, err = util.Save(chart, args[2])
	return err
}
