package main

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestUnits(t *testing.T) {
	for name, want := range map[corev1.ResourceName]unit{
		"limits.cpu": cores, "requests.cpu": cores, "cpu": cores,
		"limits.memory": bytesUnit, "memory": bytesUnit, "requests.storage": bytesUnit,
		"limits.ephemeral-storage": bytesUnit, "requests.hugepages-2Mi": bytesUnit, "hugepages-1Gi": bytesUnit,
		"fast.storageclass.storage.k8s.io/requests.storage":       bytesUnit,
		"fast.storageclass.storage.k8s.io/persistentvolumeclaims": objects,
		"pods": objects, "count/pods": objects, "requests.nvidia.com/gpu": objects, "requests.example.com/memory-gpu": objects,
	} {
		require.Equal(t, want, unitOf(name), name)
	}
}

func TestAmounts(t *testing.T) {
	for _, test := range []struct {
		unit                  unit
		quantity              string
		cell, sentence, exact string
	}{
		{bytesUnit, "0", "0", "0 bytes", "0"},
		{bytesUnit, "1", "1 byte", "1 byte", "1"},
		{bytesUnit, "1000", "1000 bytes", "1000 bytes", "1000"},
		{bytesUnit, "1Ki", "1 KiB", "1 KiB", "1024"},
		{bytesUnit, "1267028Ki", "1.21 GiB", "1.21 GiB", "1297436672"},
		{bytesUnit, "4952Mi", "4.84 GiB", "4.84 GiB", "5192548352"},
		{bytesUnit, "20Gi", "20 GiB", "20 GiB", "21474836480"},
		{bytesUnit, "9223372036854775807", "8 EiB", "8 EiB", "9223372036854775807"},
		{bytesUnit, "12345678901234567890", "10.71 EiB", "10.71 EiB", "12345678901234567890"},
		{bytesUnit, "100E", "86.74 EiB", "86.74 EiB", "100000000000000000000"},
		{bytesUnit, "1500m", "1.5 bytes", "1.5 bytes", "1.5"},
		{cores, "1", "1", "1 core", "1"},
		{cores, "1015m", "1.015", "1.015 cores", "1.015"},
		{cores, "100n", "0.0000001", "0.0000001 cores", "0.0000001"},
		{objects, "10", "10", "10", "10"},
		{objects, "5k", "5000", "5000", "5000"},
	} {
		q := resource.MustParse(test.quantity)
		require.Equal(t, test.cell, test.unit.cell(q), test.quantity)
		require.Equal(t, test.sentence, test.unit.withUnit(q), test.quantity)
		require.Equal(t, test.exact, plain(q), test.quantity)
		require.Equal(t, resource.MustParse(test.quantity), q, "the argument is left alone")
	}
}

func TestChange(t *testing.T) {
	for _, test := range []struct {
		unit           unit
		from, to, want string
	}{
		{bytesUnit, "2Gi", "5547429376", "from 2 to 5.17 GiB"},
		{bytesUnit, "512Mi", "2Gi", "from 512 MiB to 2 GiB"},
		{bytesUnit, "1298137088", "1298137089", "from 1298137088 to 1298137089 bytes"},
		{cores, "1", "2", "from 1 core to 2 cores"},
		{cores, "1015m", "2030m", "from 1.015 to 2.03 cores"},
		{objects, "3", "4", "from 3 to 4"},
	} {
		require.Equal(t, test.want, test.unit.change(resource.MustParse(test.from), resource.MustParse(test.to)))
	}
}

func TestEnumerate(t *testing.T) {
	require.Equal(t, "", enumerate(nil))
	require.Equal(t, "a", enumerate([]string{"a"}))
	require.Equal(t, "a and b", enumerate([]string{"a", "b"}))
	require.Equal(t, "a, b and c", enumerate([]string{"a", "b", "c"}))
}
