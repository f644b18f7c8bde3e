// Helm, by which the chart is rendered in the tests: only this program is built of it.
// After a change of the version: go mod tidy -e, and a build with -mod=mod
module helm

go 1.26.0

require helm.sh/helm/v3 v3.22.0
