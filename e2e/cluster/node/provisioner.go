package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	core "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
)

const (
	provisionerName = "streamagg.io/directory"
	createdBy       = "pv.kubernetes.io/provisioned-by"
	resyncPeriod    = 30 * time.Second
	retryDelayMin   = 100 * time.Millisecond
	retryDelayMax   = 5 * time.Second
	requestRateMax  = 100
	requestBurstMax = 200
	directoryMode   = 0o777
)

// provision serves claims of storage classes whose provisioner is provisionerName with directories anybody may
// write to. The provisioner inside kube-controller-manager makes them for root alone, and fsGroup does not apply
// to host paths, so that a pod that runs as another user could not use them.
//
//	provisioner KUBECONFIG DIRECTORY
func provision(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: node provisioner KUBECONFIG DIRECTORY")
	}
	config, err := clientcmd.BuildConfigFromFlags("", args[0])
	if err != nil {
		return err
	}
	config.QPS, config.Burst = requestRateMax, requestBurstMax
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	factory := informers.NewSharedInformerFactory(client, resyncPeriod)
	worker := &provisioner{
		client:    client,
		directory: args[1],
		claims:    factory.Core().V1().PersistentVolumeClaims().Informer().GetStore(),
		volumes:   factory.Core().V1().PersistentVolumes().Informer().GetStore(),
		classes:   factory.Storage().V1().StorageClasses().Informer().GetStore(),
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[task](retryDelayMin, retryDelayMax)),
	}
	if err := worker.watch(factory); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	go func() {
		<-ctx.Done()
		worker.queue.ShutDown()
	}()
	for worker.step(ctx) {
	}
	return nil
}

// task names one object to look at: a claim by namespace/name, or a volume by name.
type task struct {
	volume bool
	key    string
}

type provisioner struct {
	client    kubernetes.Interface
	directory string
	claims    cache.Store
	volumes   cache.Store
	classes   cache.Store
	queue     workqueue.TypedRateLimitingInterface[task]
}

func (worker *provisioner) watch(factory informers.SharedInformerFactory) error {
	enqueue := func(volume bool) cache.ResourceEventHandlerFuncs {
		add := func(object any) {
			if key, err := cache.MetaNamespaceKeyFunc(object); err == nil {
				worker.queue.Add(task{volume, key})
			}
		}
		return cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, object any) { add(object) }}
	}
	if _, err := factory.Core().V1().PersistentVolumeClaims().Informer().AddEventHandler(enqueue(false)); err != nil {
		return err
	}
	_, err := factory.Core().V1().PersistentVolumes().Informer().AddEventHandler(enqueue(true))
	return err
}

func (worker *provisioner) step(ctx context.Context) bool {
	next, closed := worker.queue.Get()
	if closed {
		return false
	}
	defer worker.queue.Done(next)
	var err error
	if next.volume {
		err = worker.remove(ctx, next.key)
	} else {
		err = worker.create(ctx, next.key)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", next.key, err)
		worker.queue.AddRateLimited(next)
	} else {
		worker.queue.Forget(next)
	}
	return true
}

// create makes the directory and the volume of a claim that waits for one; the controller-manager binds the two.
func (worker *provisioner) create(ctx context.Context, key string) error {
	object, found, err := worker.claims.GetByKey(key)
	if err != nil || !found {
		return err
	}
	claim := object.(*core.PersistentVolumeClaim)
	if claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil || claim.Spec.StorageClassName == nil {
		return nil
	}
	object, found, err = worker.classes.GetByKey(*claim.Spec.StorageClassName)
	if err != nil || !found {
		return err
	}
	class := object.(*storage.StorageClass)
	if class.Provisioner != provisionerName {
		return nil
	}
	name := "pvc-" + string(claim.UID)
	path := filepath.Join(worker.directory, name)
	if err := os.MkdirAll(path, directoryMode); err != nil {
		return err
	}
	// Again, because the process's mask has been taken off above.
	if err := os.Chmod(path, directoryMode); err != nil {
		return err
	}
	volume := &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: name, Annotations: map[string]string{createdBy: provisionerName}},
		Spec: core.PersistentVolumeSpec{
			AccessModes:                   claim.Spec.AccessModes,
			Capacity:                      core.ResourceList{core.ResourceStorage: claim.Spec.Resources.Requests[core.ResourceStorage]},
			StorageClassName:              class.Name,
			PersistentVolumeReclaimPolicy: *class.ReclaimPolicy,
			VolumeMode:                    claim.Spec.VolumeMode,
			ClaimRef: &core.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			PersistentVolumeSource: core.PersistentVolumeSource{HostPath: &core.HostPathVolumeSource{Path: path}},
		},
	}
	_, err = worker.client.CoreV1().PersistentVolumes().Create(ctx, volume, meta.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// remove deletes a volume of ours whose claim has gone, first the data and then the object.
func (worker *provisioner) remove(ctx context.Context, key string) error {
	object, found, err := worker.volumes.GetByKey(key)
	if err != nil || !found {
		return err
	}
	volume := object.(*core.PersistentVolume)
	if volume.Annotations[createdBy] != provisionerName || volume.Status.Phase != core.VolumeReleased ||
		volume.Spec.PersistentVolumeReclaimPolicy != core.PersistentVolumeReclaimDelete {
		return nil
	}
	if err := os.RemoveAll(filepath.Join(worker.directory, volume.Name)); err != nil {
		return err
	}
	err = worker.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, meta.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
